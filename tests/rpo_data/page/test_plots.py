"""Specifications of plots: their data by hand. That they draw is tested in a browser (tests/pipelines/test_report.py)."""

import json

import numpy as np
import polars as pl

from rpo_data.page import plots
from rpo_data.page.cells import Curves


def test_a_histogram_is_an_outline_of_shares():
    found = {"mined cells": np.array([0.1, 0.3, 0.35, 9.0]), "random pairs": np.array([-5.0])}
    spec = plots.histogram(found, np.array([0.0, 0.25, 0.5, 0.75, 1.0]), "x", "cells", {"mean": 0.5, "none": None})
    rows = spec["layer"][0]["encoding"], spec["data"]["values"]
    mined = [(row["x"], row["share"]) for row in rows[1] if row["of"] == "mined cells"]
    assert mined == [(0.0, 0.0), (0.0, 0.25), (0.25, 0.5), (0.5, 0.0), (0.75, 0.25), (1.0, 0.0)]
    assert [(row["x"], row["share"]) for row in rows[1] if row["of"] == "random pairs"] == [(0, 0), (0, 1), (0.25, 0)]
    assert rows[0]["color"]["scale"] == {
        "domain": ["mined cells", "random pairs"],
        "range": ["var(--mined)", "var(--random)"],
    }
    assert spec["layer"][1]["data"]["values"] == [{"at": 0.5, "name": "mean"}]


def test_the_slider_chooses_among_curves_that_are_all_there():
    curves = Curves(np.array([0.1, 1.0]), np.array([1.234567, 2]), np.array([[1, 0], [0.5, 0.5]]), ["own", "nearest"])
    drawn = plots.contrasts_curve(curves, [0.1], 1.5, 1)
    assert drawn["params"] == [{"name": "step", "value": 1}]
    assert drawn["data"]["values"] == [
        {"step": 0, "temperature": 0.1, "contrasts": 1.235},
        {"step": 1, "temperature": 1.0, "contrasts": 2.0},
    ]
    shares = plots.shares_plot(curves, 0)
    assert [row["share"] for row in shares["data"]["values"]] == [1, 0, 0.5, 0.5]
    assert shares["transform"] == [{"filter": "datum.step == step"}]


def test_texts_stand_in_data_only():
    evil = "datum.x'] || alert(1) //"
    rows = [{"code": evil, "number": 3}]
    spec = plots.bars(rows, "code", "number", "title", "mined")
    assert spec["data"]["values"] == rows
    spec["data"], spec["layer"][0]["encoding"]["y"]["sort"], spec["layer"][1]["encoding"]["y"]["sort"] = None, [], []
    assert evil not in json.dumps(spec)
    points = pl.DataFrame({"x": [0.0], "y": [0.0], "topic": ["1: a"], "group": ["g"], "cosine": [0.5], "text": [evil]})
    assert evil not in json.dumps([plots.prompt_map(points, by) for by in ("topic", "cosine")])
