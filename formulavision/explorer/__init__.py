"""The explorer: formulas and recipes, stores and comparisons in a browser. Gradio (the extra ``explore``) serves it."""
