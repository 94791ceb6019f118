import io
import json
import logging

import pytest
import structlog

from services.telemetry import configure_logging

KEY = "mige_01a209291c7e4fc9a1d2e3f405162738_" + "ab12" * 16
TOKEN = "migeatt_job_01a209291c7e4fc9a1d2e3f405162738_3_" + "cd34" * 16


@pytest.fixture
def lines():
    before = logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().handlers[:], level = before
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_json_object_on_one_line(lines):
    structlog.get_logger("here").info("job.retried", job_id="job_1", note="a\n{}\x1b]x\r\u2028")
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("job.retried", "info", "here")
    assert line["note"] == "a\n{}\x1b]x\r\u2028"
    assert line["timestamp"].endswith("Z")


def test_libraries_log_the_same_way(lines):
    logging.getLogger("library").warning("it is %s", "late")
    (line,) = lines()
    assert (line["event"], line["level"], line["logger"]) == ("it is late", "warning", "library")


@pytest.mark.parametrize("secret", [KEY, TOKEN])
def test_a_secret_is_blanked_wherever_it_stands(lines, secret):
    log = structlog.get_logger("here")
    event = f"with {secret}"
    log.info(event, text=f"x={secret}", nested={"list": [secret]}, token=secret)
    log.info("more", api_key="anything", Authorization="anything")
    try:
        int(secret)
    except ValueError:
        log.exception("failed")
    logging.getLogger("library").error("with %s", secret)
    text = json.dumps(lines())
    assert secret not in text
    assert secret[-32:] not in text
    assert "anything" not in text
    assert text.count("redacted") >= 7


def test_a_long_text_is_cut(lines):
    structlog.get_logger("here").info("long", text="x" * 1_000_000)
    assert len(json.dumps(lines())) < 20_000


def test_events_below_the_level_are_dropped(lines):
    structlog.get_logger("here").debug("quiet")
    assert lines() == []
