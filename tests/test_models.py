"""The bundled models: the names, the fields and the values of ScanHub's."""

import pytest

import exam_models
from calls import MRD, result, sequence, task

# The fields that an answer may lack, as those of August 2025 lack two of a task's.
ABSENT = dict.fromkeys(
    "workflow_id device_id sequence_id acquisition_parameter datetime_updated acquisition_limits "
    "updated_at seq_file_extension xml_file xml_file_extension meta".split()
) | {"position": 0, "calibration": [], "tags": [], "files": []}
RECORDS = {
    "AcquisitionTaskOut": task(),
    "MRISequenceOut": sequence(),
    "ResultOut": result(),
    "SetResult": MRD,
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_fields_are_those_of_february_2026_and_some_may_be_absent(name):
    model, record = getattr(exam_models, name), RECORDS[name]
    needed = {field: value for field, value in record.items() if field not in ABSENT}
    schema = model.model_json_schema()
    assert (set(schema["properties"]), set(schema["required"])) == (set(record), set(needed))
    read = model.model_validate(needed).model_dump(mode="json", by_alias=True)
    assert read == {field: ABSENT.get(field, value) for field, value in record.items()}


def test_a_sequence_takes_its_id_by_either_name():
    by_name = {name.removeprefix("_"): value for name, value in sequence().items()}
    assert exam_models.MRISequenceOut(**by_name) == exam_models.MRISequenceOut(**sequence())


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


def test_a_misspelt_attribute_cannot_be_assigned_but_a_field_of_the_answer_can():
    read = exam_models.AcquisitionTaskOut.model_validate(task(later=1))
    with pytest.raises(ValueError, match='"AcquisitionTaskOut" object has no field "progres"'):
        read.progres = 42
    read.later, read.progress = 2, 42
    assert read == exam_models.AcquisitionTaskOut.model_validate(task(later=2, progress=42))


def test_a_property_of_a_subclass_can_be_assigned():
    class Files(exam_models.SetResult):
        last = property(fset=lambda self, name: self.files.append(name))

    payload = Files(**MRD)
    payload.last = "b.mrd"
    assert payload.model_dump(mode="json") == MRD | {"files": ["a.mrd", "b.mrd"]}


def test_what_is_shown_of_a_sequence_leaves_out_its_files():
    shown = repr(exam_models.MRISequenceOut(**sequence(seq_file="Pulseq", xml_file="<xml>")))
    assert "seq_file_extension='.seq'" in shown
    assert "Pulseq" not in shown
    assert "<xml>" not in shown
