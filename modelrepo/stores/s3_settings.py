"""Where an S3 bucket is and who we are there, found as every AWS tool finds it: environment, `~/.aws`, the machine.

botocore answers all of it (endpoints, profiles, SSO, roles and their refresh); no byte of an object goes through it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.config
import botocore.loaders
import botocore.session
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import NoCredentialsError

LOOK_AGAIN_S = 60.0
"""How long credentials that run out are taken for good; botocore renews them ten minutes before their end."""
_SHORTEST_LIFE_S = 300.0  # obstore asks again when less than this is left
_DEFAULT_REGION = "us-east-1"
_loader = botocore.loaders.create_loader()  # reading the description of S3 takes longer than all else; once is enough


class S3Settings:
    """Settings of one bucket, read when they are first asked for; may be shared by threads."""

    def __init__(self, bucket: str, profile: str | None = None) -> None:
        self.bucket = bucket
        self._session = botocore.session.Session(profile=profile)
        self._session.register_component("data_loader", _loader)

    @cached_property
    def client(self) -> Any:
        """botocore's own client, for the one request that ours cannot make; made without asking the network."""
        options: dict[str, Any] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"total_max_attempts": 1}}
        config = botocore.config.Config(**options)
        return self._session.create_client("s3", region_name=self._configured_region, config=config)

    @cached_property
    def endpoint_url(self) -> str:
        if not self._session.get_config_variable("ignore_configured_endpoint_urls"):
            configured = ConfiguredEndpointProvider(
                full_config=self._session.full_config,
                scoped_config=self._session.get_scoped_config(),
                client_name="s3",
            ).provide()
            if configured:
                return str(configured)
        return str(self.client.meta.endpoint_url)  # takes a quarter of a second, most of it for reading rules

    @property
    def endpoint(self) -> str:
        """The server's name, the same on every box. A region in AWS's address is a box's own setting."""
        host = urlsplit(self.endpoint_url).netloc
        return "aws" if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else host

    @cached_property
    def region(self) -> str:
        """The bucket's region; AWS is asked for it, which answers whoever asks."""
        if self.endpoint != "aws":
            return self._configured_region or _DEFAULT_REGION
        configured = str(self.client.meta.region_name or _DEFAULT_REGION)
        try:
            headers = self.client.head_bucket(Bucket=self.bucket)["ResponseMetadata"]["HTTPHeaders"]
        except Exception as error:  # noqa: BLE001 - a refusal names the region too; the first real request says the rest
            answer = getattr(error, "response", {})
            headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if isinstance(answer, dict) else {}
        return str(headers.get("x-amz-bucket-region") or configured)

    def store_options(self) -> dict[str, Any]:
        """Return what obstore's S3Store is to be given; asks AWS for the bucket's region."""
        url, region = self.endpoint_url, self.region
        if self.endpoint == "aws" and region != self.client.meta.region_name:
            url = f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
        virtual = self._addressing_style == "virtual"
        if virtual:
            scheme, _, host = url.partition("://")
            url = f"{scheme}://{self.bucket}.{host}"
        return {
            "endpoint": url,
            "region": region,
            "virtual_hosted_style_request": virtual,
            # As AWS's own tools do: TLS keeps a body whole on its way, and where there is none its digest is signed.
            "unsigned_payload": url.startswith("https://"),
            "disable_bulk_delete": True,  # not every server knows it, and we delete one object at a time
            "credential_provider": self.credentials,
        }

    def client_options(self) -> dict[str, Any]:
        """Return how connections are to be made."""
        options: dict[str, Any] = {"allow_http": self.endpoint_url.startswith("http://"), "connect_timeout": "10s"}
        bundle = self._session.get_config_variable("ca_bundle")
        if bundle:
            options["root_certificate"] = Path(bundle).read_bytes()
        return options

    def credentials(self) -> Mapping[str, Any]:
        """Return the present credentials in obstore's words.

        Raises:
            NoCredentialsError
        """
        found = self._session.get_credentials()
        if found is None:
            raise NoCredentialsError
        frozen = found.get_frozen_credentials()
        renewed = hasattr(found, "refresh_needed")
        until = datetime.now(UTC) + timedelta(seconds=_SHORTEST_LIFE_S + LOOK_AGAIN_S) if renewed else None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": until,
        }

    def credential_source(self) -> str:
        """Say where the credentials came from, without asking the network."""
        return method_in_words(self._session)

    @property
    def _configured_region(self) -> str | None:
        return self._session.get_config_variable("region") or os.environ.get("AWS_REGION") or None

    @property
    def _addressing_style(self) -> str:
        settings = self._session.get_scoped_config().get("s3")
        return str(settings.get("addressing_style", "path")) if isinstance(settings, dict) else "path"


def method_in_words(session: Any) -> str:
    """Say for people in which way one of botocore's sessions has found its credentials."""
    method = getattr(getattr(session, "_credentials", None), "method", None)
    if method == "env":
        return "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if method:
        profile = session.profile or "default"
        return f"{method} (profile {profile})"
    return "none found in the environment, in ~/.aws or on the machine"
