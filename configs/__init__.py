"""Recipes and comparisons that ship with the package: ``formulavision configs`` lists and copies them."""
