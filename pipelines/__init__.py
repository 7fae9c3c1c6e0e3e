"""The order of stages, recipes, the stage store, and the command line over them."""
