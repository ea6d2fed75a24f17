# Copyright (C) 2023, BRAIN-LINK UG (haftungsbeschränkt). All Rights Reserved.
# SPDX-License-Identifier: GPL-3.0-only OR LicenseRef-ScanHub-Commercial

"""The handler of an upload. The README shows how to run it."""

from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, UploadFile
from fastapi.security import OAuth2PasswordBearer

from exam_requests import ResultOut
from uploads import store

app = FastAPI(title="Device manager")
Token = Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="login"))]


@app.post("/tasks/{task_id}/results", status_code=201)
def post_file(task_id: UUID, file: UploadFile, user_access_token: Token) -> ResultOut:
    """Store the file of a form, of any size; its name decides nothing."""
    return store(task_id, file.file, user_access_token)
