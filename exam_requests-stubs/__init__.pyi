from exam_models import AcquisitionTaskOut, MRISequenceOut, ResultOut, SetResult

__all__ = [
    "TASK_URI", "RESULT_URI", "SEQUENCE_URI", "get_task", "set_task", "get_sequence",
    "create_blank_result", "delete_blank_result", "set_result",
    "AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult",
]  # fmt: skip

TASK_URI: str
RESULT_URI: str
SEQUENCE_URI: str

def get_task(task_id: str, user_access_token: str) -> AcquisitionTaskOut: ...
def set_task(
    task_id: str, payload: AcquisitionTaskOut, user_access_token: str
) -> AcquisitionTaskOut: ...
def get_sequence(sequence_id: str, user_access_token: str) -> MRISequenceOut: ...
def create_blank_result(task_id: str, user_access_token: str) -> ResultOut: ...
def delete_blank_result(result_id: str, user_access_token: str) -> None: ...
def set_result(result_id: str, payload: SetResult, user_access_token: str) -> ResultOut: ...
