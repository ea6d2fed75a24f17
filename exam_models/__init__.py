# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""The exam manager's records, for use where ``scanhub_libraries`` is not installed.

The names and the fields are ScanHub's as of February 2026. Answers from August
2025, which lack ``position`` and ``calibration``, are read as well. A field that
is newer than these models is kept as it came, nested ones included, so a record
survives reading, changing and writing back. An attribute that is not a field
cannot be assigned.
"""

from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AcquisitionLimits",
    "AcquisitionParameter",
    "AcquisitionTaskOut",
    "CalibrationType",
    "Gender",
    "ItemStatus",
    "MRISequenceOut",
    "ResultOut",
    "ResultType",
    "SetResult",
    "TaskType",
    "XYZ",
]


class TaskType(str, Enum):
    """What a task does; the device manager works only on ``ACQUISITION``."""

    ACQUISITION = "ACQUISITION"
    DAG = "DAG"
    RECONSTRUCTION = "RECONSTRUCTION"
    PROCESSING = "PROCESSING"


class ItemStatus(str, Enum):
    """How far a task has come."""

    NEW = "NEW"
    UPDATED = "UPDATED"
    STARTED = "STARTED"
    FINISHED = "FINISHED"
    ERROR = "ERROR"
    INPROGRESS = "INPROGRESS"


class CalibrationType(str, Enum):
    """A calibration that precedes an acquisition."""

    FLIPANGLE = "flip-angle"
    FREQUENCY = "frequency"
    SHIMS = "shims"


class Gender(str, Enum):
    """A patient's gender."""

    MALE = "MALE"
    FEMALE = "FEMALE"
    OTHER = "OTHER"
    NOT_GIVEN = "NOT_GIVEN"


class ResultType(str, Enum):
    """The format of a result's files; ``NOT_SET`` for a blank result."""

    DICOM = "DICOM"
    MRD = "MRD"
    NPY = "NUMPY"
    CALIBRATION = "CALIBRATION"
    NOT_SET = "NOT_SET"


class _Record(BaseModel):
    """What all records have in common: they keep unknown fields of an answer."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    if not TYPE_CHECKING:  # A type checker that sees it would let any attribute be assigned.

        def __setattr__(self, name, value):
            """Assign a field, one of the answer or a subclass's property, not a misspelt one."""
            known = {*type(self).model_fields, *(self.model_extra or {})}
            own = isinstance(getattr(type(self), name, None), (property, cached_property))
            if name not in known and not own and not name.startswith("_"):
                raise ValueError(f'"{type(self).__name__}" object has no field "{name}"')
            super().__setattr__(name, value)


class XYZ(_Record):
    """A value for each axis."""

    x: float
    """Value along x, in the unit of the field that holds it."""
    y: float
    """Value along y, in the same unit."""
    z: float
    """Value along z, in the same unit."""


class AcquisitionParameter(_Record):
    """Scaling, offset and rotation of the field of view."""

    fov_scaling: XYZ
    """Scaling of the field of view, a factor for each axis."""
    fov_offset: XYZ
    """Offset of the field of view, in the sequence's unit; none is documented,
    and the exam manager passes it on unread."""
    fov_rotation: XYZ
    """Rotation of the field of view, in the sequence's unit; none is documented,
    and the exam manager passes it on unread."""


class AcquisitionLimits(_Record):
    """The patient that an acquisition is limited to."""

    patient_height: int
    """Height, by convention in centimetres; the exam manager names no unit and no bounds."""
    patient_weight: int
    """Weight, by convention in kilograms; the exam manager names no unit and no bounds."""
    patient_gender: Gender = Gender.NOT_GIVEN
    """Gender, ``NOT_GIVEN`` if nobody stated it."""
    patient_age: int
    """Age, by convention in years; the exam manager names no unit and no bounds."""


class SetResult(_Record):
    """What a device manager says about a result's files."""

    type: ResultType
    """Format of the files; ``NOT_SET`` as long as there are none."""
    directory: str
    """Path of the folder that holds the files; empty for a blank result."""
    files: list[str] = []
    """Names of the files in that folder, such as ``acquisition.mrd``."""
    meta: dict[Any, Any] | None = None
    """Anything else about them, in keys and units of the device manager's choice. It may hold any
    JSON value, paths, sets, dates, UUIDs, enumerations, data classes, ``Decimal`` and
    ``timedelta``, but no ``NaN`` and no infinity; convert NumPy values with ``.item()`` or
    ``.tolist()``."""


class ResultOut(SetResult):
    """A result, as the exam manager holds it: a `SetResult` with its task, id and time."""

    task_id: UUID
    """Id of the task that it belongs to."""
    id: UUID
    """Id of the result, which `exam_requests.set_result` takes as text."""
    datetime_created: datetime
    """When it was created, ISO 8601 without a zone."""


class AcquisitionTaskOut(_Record):
    """A task, as the exam manager holds it."""

    workflow_id: UUID | None = None
    """Id of the workflow that it belongs to; a task that is not a template needs one."""
    name: str
    """Name, free text."""
    description: str
    """Description, free text."""
    task_type: TaskType
    """What it does, always ``ACQUISITION`` from `exam_requests.get_task`."""
    destination: str
    """Free text, empty in all tasks seen; its meaning is not documented."""
    status: ItemStatus
    """How far it has come, as a status."""
    progress: int
    """How far it has come in percent, 0 to 100; the exam manager documents no bounds."""
    is_template: bool
    """Whether it is a template; this has to match its workflow."""
    position: int = 0
    """Place among the tasks of its workflow, counted from 0."""
    device_id: UUID | None = None
    """Id of the device that measures."""
    calibration: list[CalibrationType] = []
    """Calibrations that precede it."""
    sequence_id: str | None = None
    """Id of its sequence, 24 hexadecimal digits, for `exam_requests.get_sequence`."""
    acquisition_parameter: AcquisitionParameter | None = None
    """Scaling, offset and rotation of its field of view."""
    id: UUID
    """Id of the task, which `exam_requests.get_task` takes as text."""
    creator: str
    """Name of the user who created it."""
    datetime_created: datetime
    """When it was created, ISO 8601 without a zone."""
    datetime_updated: datetime | None = None
    """When it was last changed, ISO 8601 without a zone; ``None`` if it never was."""
    results: list[ResultOut]
    """Its results with all of their meta data, blank ones included."""
    acquisition_limits: AcquisitionLimits | None = None
    """The patient that it is limited to; ``None`` if it is not."""


class MRISequenceOut(_Record):
    """A sequence with its files; ``id`` is ``_id`` on the wire."""

    name: str
    """Name, free text."""
    description: str
    """Description, free text."""
    sequence_type: str
    """Kind of the sequence, free text; the exam manager has no list of kinds."""
    tags: list[str] = []
    """Key words, free text."""
    id: str = Field(validation_alias="_id", serialization_alias="_id")
    """Id of the sequence, 24 hexadecimal digits."""
    created_at: datetime
    """When it was created, ISO 8601 without a zone."""
    updated_at: datetime | None = None
    """When it was last changed, ISO 8601 without a zone; ``None`` if it never was."""
    seq_file: Any = Field(repr=False)
    """Text of the sequence file, such as Pulseq; the database takes 16 MiB at most."""
    seq_file_extension: str | None = None
    """Extension of its name with the dot, such as ``.seq``."""
    xml_file: Any = Field(default=None, repr=False)
    """Text of the XML file, such as an ISMRMRD header; ``None`` if there is none."""
    xml_file_extension: str | None = None
    """Extension of its name with the dot, such as ``.xml``."""
