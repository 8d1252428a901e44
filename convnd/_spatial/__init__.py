"""Pooling, padding, resampling and rearranging, for arguments in normal form."""
