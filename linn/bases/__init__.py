"""linn's own base models: made by a recipe, kept beside this file."""
