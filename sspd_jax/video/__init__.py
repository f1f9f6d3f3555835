"""From a video file or a camera to face crops on a uniform clock."""
