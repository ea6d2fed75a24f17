"""The bundled models: the names, the fields and the values of ScanHub's."""

import pytest

import exam_models
from calls import MRD, result, sequence, task

# The fields that an answer may lack, as those of August 2025 lack two of a task's.
ABSENT = dict.fromkeys(
    "workflow_id device_id sequence_id acquisition_parameter datetime_updated acquisition_limits "
    "updated_at seq_file_extension xml_file xml_file_extension meta".split()
) | {"position": 0, "calibration": [], "tags": [], "files": []}
RECORDS = {"AcquisitionTaskOut": task(), "MRISequenceOut": sequence()}
RECORDS |= {"ResultOut": result(), "SetResult": MRD}


@pytest.mark.parametrize("name", RECORDS)
def test_the_fields_are_those_of_february_2026_and_some_may_be_absent(name):
    model, record = getattr(exam_models, name), RECORDS[name]
    needed = {field: value for field, value in record.items() if field not in ABSENT}
    schema = model.model_json_schema()
    assert (set(schema["properties"]), set(schema["required"])) == (set(record), set(needed))
    by_name = {field.removeprefix("_"): value for field, value in needed.items()}  # id for _id
    read = model(**by_name).model_dump(mode="json", by_alias=True)
    assert read == {field: ABSENT.get(field, value) for field, value in record.items()}


ENUMERATIONS = {
    "TaskType": "ACQUISITION DAG RECONSTRUCTION PROCESSING",
    "ItemStatus": "NEW UPDATED STARTED FINISHED ERROR INPROGRESS",
    "CalibrationType": "FLIPANGLE=flip-angle FREQUENCY=frequency SHIMS=shims",
    "Gender": "MALE FEMALE OTHER NOT_GIVEN",
    "ResultType": "DICOM MRD NPY=NUMPY CALIBRATION NOT_SET",
}


def test_the_names_and_the_values_of_the_enumerations_are_scanhubs():
    for name, members in ENUMERATIONS.items():
        held = getattr(exam_models, name)
        told = [m.name if m.name == m.value else f"{m.name}={m.value}" for m in held]
        assert told == members.split()


class Files(exam_models.SetResult):
    last = property(fset=lambda self, name: self.files.append(name))


def test_only_a_field_of_the_model_or_of_the_answer_or_a_property_can_be_assigned():
    payload = Files(**MRD, later=1)
    with pytest.raises(ValueError, match='"Files" object has no field "directry"'):
        payload.directry = "/data/2"
    payload.directory, payload.later, payload.last = "/data/2", 2, "b.mrd"
    changed = {"directory": "/data/2", "later": 2, "files": ["a.mrd", "b.mrd"]}
    assert payload.model_dump(mode="json") == MRD | changed


def test_what_is_shown_of_a_sequence_leaves_out_its_files():
    shown = repr(exam_models.MRISequenceOut(**sequence(seq_file="no, ", xml_file="no, ")))
    assert "seq_file_extension='.seq'" in shown
    assert "no, " not in shown
