"""What a recipe does and costs before it runs."""
