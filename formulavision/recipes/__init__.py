"""Recipes, their categories, and drawing from them: the pure function (recipe, index) -> (image, label)."""
