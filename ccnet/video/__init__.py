"""Video: every picture of a film segmented, and what is drawn of it as another film."""

from ccnet.video.film import Segmenter, check_video, is_video_name, segment_video

__all__ = ["Segmenter", "check_video", "is_video_name", "segment_video"]
