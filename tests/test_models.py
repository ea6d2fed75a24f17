"""The bundled models: the names, the fields and the values of ScanHub's."""

import pytest

import exam_models
import exam_requests
from calls import CALLS, MRD, result, sequence, task


def test_a_task_from_august_2025_is_read():
    older = {key: value for key, value in task().items() if key not in {"position", "calibration"}}
    read = exam_models.AcquisitionTaskOut.model_validate(older)
    assert (read.position, read.calibration) == (0, [])


OPTIONAL_TASK = "workflow_id position device_id calibration sequence_id acquisition_parameter"
OPTIONAL_SEQUENCE = "tags updated_at seq_file_extension xml_file xml_file_extension"
FIELDS = {
    "AcquisitionTaskOut": (task(), f"{OPTIONAL_TASK} datetime_updated acquisition_limits"),
    "MRISequenceOut": (sequence(), OPTIONAL_SEQUENCE),
    "ResultOut": (result(), "files meta"),
    "SetResult": (MRD, "files meta"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_the_fields_and_the_optional_ones_are_those_of_february_2026(name):
    fields, optional = FIELDS[name]
    schema = getattr(exam_models, name).model_json_schema()
    assert set(schema["properties"]) == set(fields)
    assert set(schema["required"]) == set(fields) - set(optional.split())


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
    class OneFile(exam_models.SetResult):
        @property
        def file(self):
            return self.files[0]

        @file.setter
        def file(self, name):
            self.files = [name]

    payload = OneFile(**MRD)
    payload.file = "b.mrd"
    assert payload.model_dump(mode="json") == MRD | {"files": ["b.mrd"]}


def test_what_is_shown_of_a_sequence_leaves_out_its_files():
    shown = repr(exam_models.MRISequenceOut(**sequence(seq_file="Pulseq", xml_file="<xml>")))
    assert "seq_file_extension='.seq'" in shown
    assert "Pulseq" not in shown
    assert "<xml>" not in shown


# The module itself.


def test_the_module_exports_the_documented_names_and_the_models():
    documented = ["TASK_URI", "RESULT_URI", "SEQUENCE_URI"] + [call.function for call in CALLS]
    models = ["AcquisitionTaskOut", "MRISequenceOut", "ResultOut", "SetResult"]
    assert sorted(exam_requests.__all__) == sorted(documented + models)
