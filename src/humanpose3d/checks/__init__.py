"""The doctor's judgement: what is wrong with labelled samples, and of which subject and camera."""
