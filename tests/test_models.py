"""The bundled models: the names, the fields and the values of ScanHub's."""

import pytest

import exam_models
import exam_requests
from calls import CALLS, result, sequence, task


def test_a_task_of_august_2025_is_read():
    older = {key: value for key, value in task().items() if key not in {"position", "calibration"}}
    read = exam_models.AcquisitionTaskOut.model_validate(older)
    assert (read.position, read.calibration) == (0, [])


REQUIRED = {
    "AcquisitionTaskOut": "name description task_type destination status progress is_template id"
    " creator datetime_created results",
    "MRISequenceOut": "name description sequence_type _id created_at seq_file",
    "ResultOut": "type directory task_id id datetime_created",
    "SetResult": "type directory",
}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("AcquisitionTaskOut", {*task()}),
        ("MRISequenceOut", {*sequence()}),
        ("ResultOut", {*result()}),
        ("SetResult", {*result()} - {"task_id", "id", "datetime_created"}),
    ],
)
def test_the_fields_are_those_of_february_2026(name, fields):
    schema = getattr(exam_models, name).model_json_schema()
    assert set(schema["required"]) == set(REQUIRED[name].split())
    assert set(schema["properties"]) == fields


def test_an_id_of_a_sequence_is_given_by_either_name():
    fields = {"name": "s", "description": "", "sequence_type": "", "seq_file": ""}
    created = {"created_at": "2026-02-03T04:05:06"}
    by_name = exam_models.MRISequenceOut(id="1", **fields, **created)
    assert by_name == exam_models.MRISequenceOut(_id="1", **fields, **created)


ENUMERATIONS = {
    "TaskType": "ACQUISITION DAG RECONSTRUCTION PROCESSING",
    "ItemStatus": "NEW UPDATED STARTED FINISHED ERROR INPROGRESS",
    "CalibrationType": "FLIPANGLE=flip-angle FREQUENCY=frequency SHIMS=shims",
    "Gender": "MALE FEMALE OTHER NOT_GIVEN",
    "ResultType": "DICOM MRD NPY=NUMPY CALIBRATION NOT_SET",
}


def test_the_names_and_the_values_of_the_enumerations_are_scanhubs():
    for name, members in ENUMERATIONS.items():
        pairs = [member.partition("=") for member in members.split()]
        held = {member.name: member.value for member in getattr(exam_models, name)}
        assert held == {name: value or name for name, _, value in pairs}


def test_a_result_takes_meta_data_with_any_keys():
    meta = {1: "a", None: "b", (1, 2): "c"}
    assert exam_models.SetResult(type="MRD", directory="/d", meta=meta).meta == meta


def test_a_misspelt_attribute_cannot_be_assigned_but_a_field_that_came_with_the_answer_can():
    read = exam_models.AcquisitionTaskOut.model_validate(task(later=1))
    with pytest.raises(ValueError, match='"AcquisitionTaskOut" object has no field "progres"'):
        read.progres = 42
    read.later, read.progress = 2, 42
    assert read == exam_models.AcquisitionTaskOut.model_validate(task(later=2, progress=42))


# The module itself.


def test_the_module_exports_the_documented_names_and_the_models():
    documented = ["TASK_URI", "RESULT_URI", "SEQUENCE_URI"] + [call.function for call in CALLS]
    models = ["AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"]
    assert sorted(exam_requests.__all__) == sorted(documented + models)
