"""The data contracts: what every table, manifest and recipe of a mined contrast dataset holds. No logic lives here.

tables.py    Arrow features of the published tables, one constant a table
manifest.py  `Manifest`: every count, setting, hash and quality figure of a build
recipe.py    `Recipe`: every setting of a build
reasons.py   the codes under which a record or row is left out
frames.py    the pandera checks (imports polars and pandera: the trainer never does)
"""
