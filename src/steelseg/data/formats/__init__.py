"""File formats: RLE masks, their CSV forms, image formats."""
