"""`/v1/models`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from modelrepo.errors import InvalidName, ModelNotFound
from modelrepo.names import check_model_name, check_version_id
from modelrepo_runtime.gateway.access import Submitter
from modelrepo_runtime.gateway.parts import PartsOf
from modelrepo_runtime.gateway.schemas import ModelDocument, ModelList, faults

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", operation_id="listModels", response_model=ModelList, responses=faults(), summary="List models")
async def list_models(caller: Submitter, parts: PartsOf) -> Response:
    """List the models that the token may use, each with its active version and its schemas."""
    found = await parts.store_calls.run(parts.client.models)
    allowed = caller.grant.models
    return JSONResponse({"models": [model for model in found if not allowed or model["name"] in allowed]})


@router.get(
    "/{name}", operation_id="getModel", response_model=ModelDocument, responses=faults(404), summary="Look at a model"
)
async def get_model(
    name: str,
    caller: Submitter,
    parts: PartsOf,
    version: Annotated[str | None, Query(max_length=100, description="The active one unless given.")] = None,
) -> Response:
    """Return a version of a model with the schema of each input and output."""
    try:
        check_model_name(name)
        if version is not None:
            check_version_id(version)
    except InvalidName as error:
        raise ModelNotFound(f"no model {name[:64]!a} of version {(version or 'active')[:64]!a}") from error
    caller.check_model(name)
    return JSONResponse(await parts.store_calls.run(parts.client.model, name, version))
