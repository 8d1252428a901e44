"""The mechanisms, on arguments in their normal forms. Nothing here is public."""
