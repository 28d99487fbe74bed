"""Pictures of what goes in and what comes out, drawn with OpenCV and Pillow."""
