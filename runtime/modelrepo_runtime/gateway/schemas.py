"""The API's documents, as its OpenAPI description has them. `Job.to_json` writes the answers; a test holds both."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from modelrepo_runtime.jobs import MOST_ADAPTERS

LONGEST_NAME = 100
NAME_PATTERN = r"^[^\x00-\x1f\x7f]+$"


def _plain(value: Any) -> Any:
    """Refuse what Python reads as JSON and no other does: NaN, infinities and halves of surrogate pairs."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a surrogate pair, which is no text") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("holds a number that is none, or lists too deep") from error
    return value


Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=NAME_PATTERN), AfterValidator(_plain)]
Object = Annotated[dict[str, Any], AfterValidator(_plain)]


class WebhookBody(BaseModel):
    """Where the job's events are posted, as Standard Webhooks."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(max_length=2048, description="An https URL that leads to a public address.")
    secret: str = Field(
        max_length=800, pattern=r"^whsec_[A-Za-z0-9+/=]+$", description="`whsec_` and 16 to 512 bytes in base64."
    )


class AdapterBody(BaseModel):
    """Weights that come with a job, such as a LoRA: exactly one of `url`, `file` and `ref`."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"ref": "watercolour@v3", "weight": 0.8}]}
    )
    url: str | None = Field(None, min_length=1, max_length=2048, description="An https URL; wants `sha256`.")
    file: str | None = Field(None, min_length=1, max_length=100, description="The id of an upload of the tenant's own.")
    ref: str | None = Field(
        None, min_length=1, max_length=200, description="`NAME@VERSION` of an adapter that the repository publishes."
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Of its bytes, which are held to it.")
    weight: float = Field(1.0, ge=-1e9, le=1e9, allow_inf_nan=False, description="Handed on to the model.")


class SubmissionBody(BaseModel):
    """A job to be done."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"model": "video-gen", "inputs": {"prompt": "a cat"}, "tier": "api"}]},
    )
    model: Name = Field(description="The model's name.")
    inputs: Object = Field(
        default_factory=dict,
        description='By the model\'s own schema (`GET /v1/models/{name}`). A file is `{"file": id}` or an https URL.',
    )
    tier: Name | None = Field(None, description="The class of user; the default tier unless given.")
    tenant: Name | None = Field(None, description="On whose behalf; the token's own tenant unless given.")
    version: Name | None = Field(None, description="Pin a version; the one that is active when it runs unless given.")
    adapters: list[AdapterBody] = Field(
        default_factory=list,
        max_length=MOST_ADAPTERS,
        description="Handed to the model, in this order.",
    )
    deadline: AwareDatetime | None = Field(None, description="RFC 3339; nobody wants it after that.")
    webhook: WebhookBody | None = Field(None, description="Where its events are posted.")
    metadata: Object = Field(default_factory=dict, description="Kept with the job and handed back.")


class Eta(BaseModel):
    """When the job is expected to start and to end."""

    start_at: str | None
    finish_at: str | None


class Place(BaseModel):
    """How far a waiting or running job is."""

    position: int | None = Field(description="Jobs of its model that would go before it, counted to a thousand a lane.")
    slo_share: float | None = Field(description="The part of its tier's longest acceptable wait that it has used.")


class Output(BaseModel):
    """A file that the job made."""

    name: str
    url: str | None = Field(description="By which anybody may fetch it until `expires_at`.")
    expires_at: str | None
    bytes: int
    content_type: str


class JobFault(BaseModel):
    """Why a job did not succeed."""

    code: str
    message: str
    retryable: bool


class JobDocument(BaseModel):
    """A job: the same in the API, the command line's `--json`, events and webhooks. Times are RFC 3339 in UTC."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "job_01jd3m5v9xk2q8r4t6w0y1z3",
                    "model": "video-gen",
                    "version": "v42",
                    "tier": "api",
                    "tenant": "acme",
                    "status": "running",
                    "stage": "generate",
                    "progress": 0.4,
                    "message": "step 16/40",
                    "created_at": "2026-11-22T12:00:00.000Z",
                    "started_at": "2026-11-22T12:00:03.000Z",
                    "finished_at": None,
                    "eta": {"start_at": None, "finish_at": "2026-11-22T12:00:45.000Z"},
                    "queue": {"position": None, "slo_share": 0.31},
                    "result": None,
                    "outputs": [],
                    "error": None,
                    "metadata": {"order": 17},
                }
            ]
        }
    )
    id: str
    model: str
    version: str | None
    tier: str
    tenant: str
    status: Literal["queued", "running", "succeeded", "failed", "rejected", "cancelled", "expired"]
    stage: str | None
    progress: float | None
    message: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    eta: Eta | None
    queue: Place | None
    result: Any
    outputs: list[Output]
    error: JobFault | None
    metadata: dict[str, Any]


class JobPage(BaseModel):
    """Jobs, newest first."""

    jobs: list[JobDocument]
    next: str | None = Field(description="What `after` takes for the next page; null on the last.")


class FileBody(BaseModel):
    """A file to be uploaded."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "cat.png"}]})
    name: str = Field(
        "file", max_length=100, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="Models see the file by it."
    )


class FilePlace(BaseModel):
    """Where the bytes go."""

    id: str = Field(description='Named in a submission as `{"file": id}`.')
    upload_url: str = Field(description="PUT the bytes here, 5 GiB at most, without a token.")
    expires_at: str


class ModelDocument(BaseModel):
    """A model that has an active version."""

    name: str
    version: str
    inputs: dict[str, Any] | None = Field(description="A JSON Schema for each input; null: anything goes.")
    outputs: dict[str, Any]


class ModelList(BaseModel):
    """All models that the token may use."""

    models: list[ModelDocument]


class Fault(BaseModel):
    """What went wrong."""

    code: str = Field(description="For programs; never reworded.")
    message: str = Field(description="For people.")
    retryable: bool = Field(description="True: the same request may succeed later.")
    pointer: str | None = Field(None, description="RFC 6901: where in the body.")


class FaultDocument(BaseModel):
    """Every answer that is no success."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "invalid_job_input",
                        "message": "inputs of video-gen: /steps: 'many' is not a number",
                        "retryable": False,
                        "pointer": "/inputs/steps",
                    }
                }
            ]
        }
    )
    error: Fault


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of the errors that a path may answer with, those of every path included."""
    return {status: {"model": FaultDocument, "description": _FAULTS[status]} for status in (*statuses, *_EVERYWHERE)}


_EVERYWHERE = (401, 403, 413, 422, 503)
_FAULTS = {
    401: "No token, or none that is live.",
    403: "The token is not for this.",
    404: "There is no such thing, or it is another tenant's.",
    409: "What is there stands in the way.",
    413: "The body is larger than 1 MiB, the file larger than 5 GiB.",
    422: "The request is not possible as written; `pointer` says where.",
    429: "Too much waits already, or it would be late; `Retry-After` says when to ask again.",
    503: "The gateway is overloaded or cannot reach its queue; nothing may have been changed.",
}
