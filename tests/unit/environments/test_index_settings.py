from __future__ import annotations

from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from modelrepo.environments import choose_interpreter, pip_configuration
from modelrepo.environments.carried import build_wheel
from modelrepo.environments.index_settings import IndexSettings, local_path
from modelrepo.environments.uv_tool import Uv
from modelrepo.errors import EnvironmentFailed


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose pip reads no file but those below its own home."""
    monkeypatch.setattr(pip_configuration, "SYSTEM_FILE", tmp_path / "none")
    (tmp_path / "etc").mkdir()
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "etc"), "VIRTUAL_ENV": str(tmp_path / "venv")}


def pip_conf(home: dict[str, str], text: str, folder: str = ".config/pip") -> None:
    path = Path(home["HOME"]) / folder / "pip.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_flags_beat_uv_which_beats_pip(home: dict[str, str]) -> None:
    pip_conf(home, "[global]\nindex-url = https://pip.example/simple\ncert = /pip.pem\n")
    assert IndexSettings.from_environment(home).default_index == "https://pip.example/simple"
    with_uv = home | {"UV_DEFAULT_INDEX": "https://uv.example/simple", "SSL_CERT_FILE": "/uv.pem"}
    found = IndexSettings.from_environment(with_uv)
    assert (found.default_index, found.cert) == ("https://uv.example/simple", "/uv.pem")
    found = IndexSettings.from_environment(with_uv, default_index="https://flag.example/simple", cert="/flag.pem")
    assert (found.default_index, found.cert) == ("https://flag.example/simple", "/flag.pem")


def test_a_stronger_index_is_never_mixed_with_a_weaker_extra_one(home: dict[str, str]) -> None:
    pip_conf(home, "[global]\nextra-index-url = https://public.example/simple\n")
    found = IndexSettings.from_environment(home | {"UV_DEFAULT_INDEX": "https://private.example/simple"})
    assert found.indexes == ()


def test_lists_are_read_as_each_tool_writes_them(home: dict[str, str], tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    pip_conf(
        home,
        f"[global]\nextra-index-url =\n  https://a.example/s\n  https://b.example/s\nfind-links = {one}\n  {two}\n",
    )
    found = IndexSettings.from_environment(home)
    assert found.indexes == ("https://a.example/s", "https://b.example/s")
    assert found.find_links == (str(one), str(two))
    found = IndexSettings.from_environment(
        home | {"UV_FIND_LINKS": f"{two},{one}", "UV_INDEX": "x=https://c.example/s https://d"}
    )
    assert found.find_links == (str(two), str(one))
    assert found.indexes == ("x=https://c.example/s", "https://d")


def test_pip_variables_beat_install_which_beats_global(home: dict[str, str]) -> None:
    pip_conf(home, "[install]\nindex_url = https://user-install/s\n[global]\nindex-url = https://user/s\n")
    pip_conf(home, "[global]\nindex-url = https://site/s\n", "venv")
    assert IndexSettings.from_environment(home).default_index == "https://user-install/s"
    assert IndexSettings.from_environment(home | {"PIP_INDEX_URL": "https://env/s"}).default_index == "https://env/s"


def test_a_named_configuration_file_wins_and_devnull_means_none(home: dict[str, str], tmp_path: Path) -> None:
    pip_conf(home, "[global]\nindex-url = https://user/s\n")
    named = tmp_path / "named.conf"
    named.write_text("[global]\nindex-url = https://named/s\n")
    assert IndexSettings.from_environment(home | {"PIP_CONFIG_FILE": str(named)}).default_index == "https://named/s"
    assert IndexSettings.from_environment(home | {"PIP_CONFIG_FILE": "/dev/null"}).default_index is None


def test_a_folder_that_is_gone_is_passed_over(home: dict[str, str], tmp_path: Path) -> None:
    settings = {
        "PIP_FIND_LINKS": f"{tmp_path}/gone {tmp_path}",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/gone https://x/s",
    }
    found = IndexSettings.from_environment(home | settings)
    assert (found.find_links, found.indexes) == ((str(tmp_path),), ("https://x/s",))


def test_a_broken_pip_conf_is_no_reason_to_fail(home: dict[str, str]) -> None:
    pip_conf(home, "index-url = no section\n")
    assert IndexSettings.from_environment(home) == IndexSettings()


def test_no_index_is_handed_on(home: dict[str, str]) -> None:
    found = IndexSettings.from_environment(home | {"PIP_NO_INDEX": "1"})
    assert (found.variables(), found.arguments()) == ({}, ("--no-index",))
    assert IndexSettings.from_environment(home).arguments() == ()


def test_uv_inherits_nothing_that_could_point_it_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "UV_PYTHON",
        "UV_PROJECT_ENVIRONMENT",
        "VIRTUAL_ENV",
        "PIP_TARGET",
        "PYTHONPATH",
        "AWS_SECRET_ACCESS_KEY",
    ):
        monkeypatch.setenv(name, "/")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    index = IndexSettings("https://d/s", ("https://e/s", "f=https://f/s"), ("/a", "/b"), "/c.pem")
    environment = Uv(index, cache=tmp_path, link_mode="copy").environment(offline=True)
    assert environment["HTTPS_PROXY"] == "http://proxy"
    assert {
        name: value
        for name, value in environment.items()
        if name.startswith(("UV_", "PIP_", "VIRTUAL", "PYTHON", "AWS"))
    } == {
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "UV_CACHE_DIR": str(tmp_path),
        "UV_LINK_MODE": "copy",
        "UV_OFFLINE": "1",
        "UV_DEFAULT_INDEX": "https://d/s",
        "UV_INDEX": "https://e/s f=https://f/s",
        "UV_FIND_LINKS": "/a,/b",
    }
    assert environment["SSL_CERT_FILE"] == "/c.pem"


def test_passwords_of_named_indexes_are_handed_on_and_never_shown(home: dict[str, str]) -> None:
    found = IndexSettings.from_environment(
        home | {"UV_INDEX_MINE_PASSWORD": "hunter2", "UV_KEYRING_PROVIDER": "subprocess"}
    )
    assert found.variables() == {"UV_INDEX_MINE_PASSWORD": "hunter2", "UV_KEYRING_PROVIDER": "subprocess"}
    assert "hunter2" not in repr(found)


def test_a_relative_folder_is_that_of_whoever_wrote_it(
    home: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    monkeypatch.chdir(tmp_path)
    assert IndexSettings.from_environment(home, find_links=["wheels"]).find_links == (str(tmp_path / "wheels"),)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///a%20b/c", "/a b/c"),
        ("/a/b", "/a/b"),
        ("wheels", "wheels"),
        ("https://x/s", None),
        ("git+ssh://x", None),
    ],
)
def test_a_local_address_has_a_path(address: str, path: str | None) -> None:
    assert local_path(address) == (None if path is None else Path(path))


def test_what_a_build_prints_of_its_environment_has_no_passwords(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "telling"\nbackend-path = ["."]\n'
    )
    (tmp_path / "telling.py").write_text(
        "import os\ndef get_requires_for_build_wheel(*_): return []\n"
        "def build_wheel(*_): raise SystemExit(str(dict(os.environ)))\n"
    )
    settings = IndexSettings(
        default_index="https://me:one%40two@127.0.0.1:9/simple",
        indexes=("https://three@127.0.0.1:9/simple", "p=https://127.0.0.1:9/p"),
        credentials=(("UV_INDEX_P_PASSWORD", "four"), ("UV_INDEX_P_USERNAME", "me")),
    )
    assert settings.secrets() == ("one%40two", "one@two", "three", "four")
    with pytest.raises(EnvironmentFailed) as caught:
        build_wheel(Uv(settings, cache=tmp_path / "uv"), tmp_path, choose_interpreter(SpecifierSet()), tmp_path)
    told = f"{caught.value} {caught.value.log}"
    assert "UV_INDEX_P_PASSWORD" in told
    assert not [secret for secret in settings.secrets() if secret in told]


def test_a_build_reads_no_configuration_above_its_work_folder(tmp_path: Path) -> None:
    (tmp_path / "uv.toml").write_text("neither = [toml\n")
    (tmp_path / "work").mkdir()
    with pytest.raises(EnvironmentFailed, match="cannot build a wheel") as caught:
        build_wheel(Uv(cache=tmp_path / "uv"), tmp_path / "none", choose_interpreter(SpecifierSet()), tmp_path / "work")
    assert "uv.toml" not in str(caught.value)


def test_where_nobody_names_an_index_uvs_own_is_asked() -> None:
    (asked,) = IndexSettings().addresses()
    assert asked.url.startswith("https://")
    assert asked.url.endswith("/simple")
