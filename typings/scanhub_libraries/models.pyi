# ScanHub's library is not installed here; to the type checker, its models are the bundled ones.
from exam_models import *  # noqa: F403
