"""Where settings come from, what each refuses, and the page about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from serve import settings_doc
from serve.settings import Settings, SettingsError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(environ)
    return caught.value.faults


def test_defaults() -> None:
    settings = Settings.load({})
    assert (settings.model, settings.port, settings.context, settings.slots) == ("demo", 8080, 2048, 4)
    assert (settings.temperature, settings.top_p, settings.repetition_penalty) == (0.7, 0.9, 1.1)
    assert settings.api_key is None
    assert settings.max_body == 1024 * 1024


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "youtu.toml").write_text('port = 9001\nslots = 2\nmax_body = "2MiB"\n')
    settings = Settings.load({"YOUTU_PORT": "9002", "PATH": "/bin"})
    assert (settings.port, settings.slots, settings.max_body) == (9002, 2, 2 * 1024 * 1024)


def test_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "youtu.toml").write_text("slots = 2")
    other = tmp_path / "other.toml"
    other.write_text("slots = 3")
    assert Settings.load({"YOUTU_CONFIG": str(other)}).slots == 3
    assert "file not found" in faults_of({"YOUTU_CONFIG": str(tmp_path / "none.toml")})[0]


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.load({"YOUTU_API_KEY": "", "YOUTU_PORT": ""}).port == 8080


def test_variables_of_the_client_are_let_pass() -> None:
    Settings.load({"YOUTU_SERVER": "elsewhere:8001"})


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("YOUTU_PROT", "YOUTU_PORT"), ("YOUTU_Port", "YOUTU_PORT"), ("YOUTU_SLOT", "YOUTU_SLOTS")],
)
def test_an_unknown_variable_is_named_with_the_nearest(variable: str, nearest: str) -> None:
    assert faults_of({variable: "1"}) == [f"{variable}: unknown setting; did you mean {nearest}?"]


@pytest.mark.parametrize("variable", ["youtu_port", "Youtu_Port", "YOUTU-PORT"])
def test_a_variable_in_another_spelling_is_not_ignored(variable: str) -> None:
    assert faults_of({variable: "1"}) == [f"{variable}: unknown setting; did you mean YOUTU_PORT?"]


def test_variables_of_other_programs_are_let_pass() -> None:
    Settings.load({"youtu_other": "1", "youtube_port": "1", "port": "1", "PORT": "1"})


@pytest.mark.parametrize("key", ["YOUTU_HTTP_PORT", "youtu_http_port", "HTTP_PORT", "Http_Port", "http-port"])
def test_a_key_in_another_spelling_is_refused_with_the_right_one(tmp_path: Path, key: str) -> None:
    """`YOUTU_PORT = 9000` was answered with a far-fetched name or none."""
    (tmp_path / "youtu.toml").write_text(f"{key} = 9000")
    assert faults_of({}) == [f"{key} in youtu.toml: unknown setting; in a file the key is http_port"]


@pytest.mark.parametrize("text", ["[youtu]\nport = 9000", "[port]\nx = 1", "youtu.port = 9000"])
def test_a_table_in_the_file_is_refused_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "youtu.toml").write_text(text)
    (fault,) = faults_of({})
    assert fault.endswith("in youtu.toml: is a table; write settings as plain keys outside any table")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("triton_http = false", 'should be a number or a quoted text such as "on", not false'),
        ("port = [9000]", 'should be a number or a quoted text such as "on", not a list'),
        ('port = "http"', "should be a valid integer"),
        ("port = 9000.5", "should be a valid integer"),
        ("port = 2024-01-01", "should be a valid integer"),
        ("model = 5", "should be a valid string"),
        ("data_dir = 5", "should be a path"),
        ("log_level = 1", "should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_type(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "youtu.toml").write_text(line)
    (fault,) = faults_of({})
    assert fault.startswith(f"{line.split(' ')[0]} in youtu.toml: {says}")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "youtu.toml").write_bytes(b"\xef\xbb\xbfport = 9000\r\n")
    assert Settings.load({}).port == 9000


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_reported(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "youtu.toml").write_bytes('model = "modèle"'.encode(encoding))
    (fault,) = faults_of({})
    assert fault.startswith("youtu.toml: byte ")
    assert fault.endswith("is not UTF-8; save the file as UTF-8")


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("127.1", "127.0.0.1"), ("::1", "::1"), ("::ffff:127.0.0.1", "127.0.0.1")],
)
def test_tritons_host_is_resolved(host: str, address: str) -> None:
    assert Settings.load({"YOUTU_TRITON_HOST": host}).triton_host == address


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nowhere.invalid", "should be an address, or a name that resolves to one ("),
        ("no such", "should be an address, or a name that resolves to one ("),
        ("[::1]", "should be an address, or a name that resolves to one ("),
        ("255.255.255.255", "should be an address that a server can listen on"),
        ("224.0.0.1", "should be an address that a server can listen on"),
        ("ff02::1", "should be an address that a server can listen on"),
        ("fe80::1%1", "should be an address without a zone (%)"),
    ],
)
def test_what_triton_cannot_listen_on_is_refused_by_name(host: str, says: str) -> None:
    """Triton waited on 255.255.255.255, for ever."""
    (fault,) = faults_of({"YOUTU_TRITON_HOST": host})
    assert fault.startswith(f"YOUTU_TRITON_HOST: {says}")
    assert fault.endswith(f", not {host!r}")


def test_a_name_with_several_addresses_is_refused_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", ("192.0.2.1", 0)), (10, 1, 6, "", ("2001:db8::1", 0, 0, 0))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert Settings.load({"YOUTU_TRITON_HOST": "one.example"}).triton_host == "192.0.2.1"
    found.append((2, 1, 6, "", ("192.0.2.2", 0)))
    (fault,) = faults_of({"YOUTU_TRITON_HOST": "two.example"})
    assert fault == (
        "YOUTU_TRITON_HOST: should have a single address (192.0.2.1, 192.0.2.2 were found), not 'two.example'"
    )


def test_an_unknown_key_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "youtu.toml").write_text("prot = 1\nzzz = 2\n")
    first, second = faults_of({})
    assert first == "prot in youtu.toml: unknown setting; did you mean port?"
    assert second.startswith("zzz in youtu.toml: unknown setting (docs/settings.md")


@pytest.mark.parametrize("text", ["port = ", "\xff", "[port]\nx = 1", "slots = true", "slots = [1]"])
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "youtu.toml").write_bytes(text.encode("latin-1"))
    (fault,) = faults_of({})
    assert "youtu.toml" in fault


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("port", ["0", "65536", "-1", "eighty", "80.5"]),
        ("http_port", ["0", "65536"]),
        ("grpc_port", ["0", "65536"]),
        ("metrics_port", ["0", "65536"]),
        ("profile", ["nonsense", "8GB"]),
        ("slots", ["0", "257", "many"]),
        ("queue", ["0", "1025"]),
        ("context", ["31", "131073"]),
        ("threads", ["-1", "1025"]),
        ("prefill_chunk", ["7", "4097"]),
        ("kv_type", ["f8", "F16"]),
        ("temperature", ["-0.1", "2.1", "nan", "inf", "warm"]),
        ("top_p", ["0", "1.1", "nan"]),
        ("repetition_penalty", ["0", "2.1", "inf"]),
        ("request_timeout", ["0", "-1", "86401", "nan"]),
        ("drain_timeout", ["-1", "3601", "inf"]),
        ("max_body", ["1023", "1GiB", "3 bananas"]),
        ("log_level", ["loud", "INFO"]),
    ],
)
def test_each_value_out_of_range_is_refused_with_name_and_value(name: str, values: list[str]) -> None:
    for value in values:
        (fault,) = faults_of({f"YOUTU_{name.upper()}": value})
        assert fault.startswith(f"YOUTU_{name.upper()}: ")
        assert repr(value) in fault


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "youtu.toml").write_text("context = 1\nprot = 1")
    faults = faults_of({"YOUTU_SLOTS": "0", "YOUTU_NEW": "1"})
    assert len(faults) == 4


def test_http_that_is_off_needs_no_port_of_its_own() -> None:
    assert Settings.load({"YOUTU_HTTP_PORT": "8080", "YOUTU_TRITON_HTTP": "off"}).port == 8080


def test_two_settings_cannot_have_one_port() -> None:
    (fault,) = faults_of({"YOUTU_HTTP_PORT": "8080"})
    assert fault == "port and http_port are both 8080; each needs a port of its own"


@pytest.mark.parametrize("key", ["two words", "schlüssel", "tab\there", "\n"])
def test_a_key_that_fits_no_header_is_refused_and_not_shown(key: str) -> None:
    (fault,) = faults_of({"YOUTU_API_KEY": key})
    assert "printable ASCII" in fault
    assert key.strip() == "" or key not in fault


def test_the_key_is_never_printed() -> None:
    settings = Settings.load({"YOUTU_API_KEY": "very-secret"})
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "very-secret"
    assert (
        "very-secret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.load({}).port = 1


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_page_is_current() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_doc.table(), "run make settings-doc"
    assert all(f"`YOUTU_{name.upper()}`" in page for name in Settings.model_fields)


def test_a_program_is_handed_what_applies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: a relative keys file was looked for in the folder in which the frontend runs."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(api_key="sesame", keys_file="keys.txt", host="0.0.0.0")  # type: ignore[arg-type]
    document = tmp_path / "frontend.json"
    document.write_text(settings.to_document())
    read = Settings.from_document(document)
    assert read.keys_file == tmp_path / "keys.txt"
    assert read.api_key is not None
    assert read.api_key.get_secret_value() == "sesame"
    assert read.hang_timeout == settings.hang_timeout
