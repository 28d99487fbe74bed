"""Networks that give cues: 2D keypoints of people, metric depth. Real weights or the studio's, the same code."""
