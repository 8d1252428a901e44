"""Pooling, padding, resampling and rearranging, on arguments in their normal forms."""
