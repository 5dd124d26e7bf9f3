"""A Kafka that asks who we are and allows only what was granted: the worker under SASL over TLS and mutual TLS, with
exactly the rights of docs/security.md, and with one fewer; and secrets, which are to be seen nowhere.
"""

from __future__ import annotations

import gc
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import NewTopic

from tests import factory, kafka
from tests.programs import ROOT, Program, until
from tests.secured import Right, SecuredBroker
from tests.secured_site import METRICS_PASSWORD, PASSWORD, SECRETS, Login, Site, commands, needed
from worker.__main__ import main
from worker.errors import BrokerError, BrokerUnreachable
from worker.kafka import topics
from worker.kafka.needs import require_topics_of
from worker.settings import KafkaSettings, Settings

USERS = ("scram", "fewer", "maker", "trainer")
READINGS = [*factory.random_readings(40, 10), b"{"]      # four anomalies, and one that is no reading


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredBroker(folder, dict.fromkeys(USERS, PASSWORD))
    broker.start()
    factory.publish(folder / "models")
    found = Site(broker, folder)
    for user in (*USERS, "mutual"):
        compacted = {"topic_configs": {"cleanup.policy": "compact"}}
        broker.admin.create_topics([NewTopic(f"{kind}-{user}", 1, 1) for kind in ("in", "out", "dead")])
        if user != "maker":
            own = (f"incidents-{user}", f"group-{user}-state")
            broker.admin.create_topics([NewTopic(name, 1, 1, **compacted) for name in own])
    yield found
    broker.stop()


def seen(site: Site, user: str, kind: str) -> list[bytes]:
    return [record.value for record in kafka.contents(site.broker.open, f"{kind}-{user}", "read_committed")]


def committed(site: Site, user: str) -> int | None:
    consumer = KafkaConsumer(bootstrap_servers=site.broker.open, group_id=f"group-{user}", enable_auto_commit=False)
    try:
        found: int | None = consumer.committed(TopicPartition(f"in-{user}", 0))
        return found
    finally:
        consumer.close()


def without_secrets(*texts: str) -> None:
    for text in texts:
        assert text
        assert [secret for secret in SECRETS if secret in text] == []


def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variables: Mapping[str, str]
) -> tuple[int, str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    handlers = logging.getLogger().handlers[:]
    code = main(["check"])
    logging.getLogger().handlers[:] = handlers          # it would go on to write into what is captured here
    told = capsys.readouterr()
    without_secrets(told.out + told.err)
    assert "Traceback" not in told.err
    assert not told.err or told.err.startswith("zmu-worker: ")      # kafka-python's own lines are left out
    return code, told.err


def granted(site: Site, told: str) -> list[Right]:
    """Does what the message says, and tells what that was."""
    rights = []
    for user, right in commands(told):
        site.broker.grant(user, [right])
        rights.append(right)
    return rights


def a_right_that_goes_and_comes_back(site: Site, living: Program) -> None:
    """Nothing is lost meanwhile, and the log names it."""
    output = ("topic", "out-scram", "write")
    site.broker.revoke("scram", output)
    kafka.fill(site.broker.open, "in-scram", [factory.reading(factory.ANOMALOUS, 1_764_000_100_000)], [b"pump-1"])
    living.says('"stage": "publish", "error": "[Error 29] TopicAuthorizationFailedError: out-scram"')
    until(lambda: living.get("/readyz")[0] == 503, 30, lambda: living.stderr)
    site.broker.grant("scram", [output])
    until(lambda: committed(site, "scram") == len(READINGS) + 1, 60, lambda: living.stderr)


def test_with_exactly_these_rights_the_worker_does_all_its_work(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three ways in at once, and a user whose topics of state and incidents are still to be made."""
    served = {
        "ZMU_HTTP__USERNAME": "prometheus",
        "ZMU_HTTP__PASSWORD_FILE": str(site.secret("metrics-password", METRICS_PASSWORD)),
    }
    ways = [("scram", "SCRAM-SHA-512", "at-least-once"), ("mutual", "mutual", "exactly-once"),
            ("maker", "PLAIN", "exactly-once")]
    for user, _, delivery in ways:
        site.broker.grant(user, needed(user, delivery == "exactly-once"))
        kafka.fill(site.broker.open, f"in-{user}", READINGS, [b"pump-1"] * len(READINGS))
    environments = [
        site.environment(site.login(user, mechanism), ZMU_OUTPUT__DELIVERY=delivery, **served)
        for user, mechanism, delivery in ways
    ]
    code, told = check(monkeypatch, capsys, environments[-1])
    assert code == 2
    assert granted(site, told) == [("topic", name, "create") for name in ("group-maker-state", "incidents-maker")]
    living = Program("worker", "run", **environments[0])
    drained = [Program("worker", "run", "--until-drained", **environment) for environment in environments[1:]]
    with living, drained[0], drained[1]:
        assert [program.wait(120) for program in drained] == [0, 0], [program.stderr for program in drained]
        until(lambda: committed(site, "scram") == len(READINGS), 60, lambda: living.stderr)
        texts = [living.get(path)[1] for path in ("/healthz", "/readyz", "/metrics")]
        assert living.get("/metrics")[0] == 401
        a_right_that_goes_and_comes_back(site, living)
        assert living.stop() == 0
        without_secrets(living.stderr, *texts, *(program.stderr for program in drained))
    for user, _, _ in ways:
        more = user == "scram"
        assert committed(site, user) == len(READINGS) + more, user
        assert len(seen(site, user, "out")) == 4 + more, user
        assert seen(site, user, "dead") == [b"{"], user


@pytest.mark.parametrize("missing", range(8), ids=lambda n: " ".join(needed("fewer", True)[n]))
def test_one_right_fewer_is_named_with_the_command_that_grants_it(
    site: Site, missing: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rights = needed("fewer", exactly_once=True)
    lacking = rights.pop(missing)
    site.broker.revoke("fewer")
    site.broker.grant("fewer", rights)
    environment = site.environment(site.login("fewer", "SCRAM-SHA-512"), ZMU_OUTPUT__DELIVERY="exactly-once")
    code, told = check(monkeypatch, capsys, environment)
    assert code == 2
    assert granted(site, told) == [lacking], told
    kind, name, operation = lacking
    assert f"denies this user {operation.title()} on {kind.replace('_', '-')} '{name.rstrip('*')}'. Grant it:" in told
    code, told = check(monkeypatch, capsys, environment)
    assert (code, told) == (0, "")


def test_the_page_grants_what_is_needed_and_no_more() -> None:
    page = (ROOT / "docs/security.md").read_text()
    theirs = {"in-fewer": "sensor-readings", "out-fewer": "sensor-anomalies", "dead-fewer": "sensor-readings.dlq",
              "incidents-fewer": "sensor-incidents", "group-fewer": "zmu-worker", "group-fewer-*": "zmu-worker-*",
              "group-fewer-state": "zmu-worker-state"}
    needs = [(kind, theirs[name], operation) for kind, name, operation in needed("fewer", exactly_once=True)]
    assert sorted(right for _, right in commands(page)) == sorted(needs)
    assert {user for user, _ in commands(page)} == {"zmu"}


def test_without_any_right_all_are_named_at_once_and_run_says_the_same(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.broker.revoke("fewer")
    environment = site.environment(site.login("fewer", "PLAIN"), ZMU_OUTPUT__DELIVERY="exactly-once")
    with Program("worker", "run", **environment) as program:
        code, told = check(monkeypatch, capsys, environment)
        assert code == 2
        assert program.wait() == 2
        assert told.strip() in program.stderr
        without_secrets(program.stderr)
        assert sorted(granted(site, told)) == sorted(needed("fewer", exactly_once=True))


def test_training_needs_to_read_its_topic_and_no_more(site: Site) -> None:
    login = site.login("trainer", "SCRAM-SHA-512")
    settings = settings_of(login)
    kafka.fill(site.broker.open, "in-trainer", READINGS)

    def read() -> int:
        with topics.opened(settings, "in-trainer") as topic:
            return sum(len(records) for records in topic.records(topic.spans()))

    site.broker.revoke("trainer")
    for rights in [], [("topic", "in-trainer", "describe")]:
        site.broker.grant("trainer", rights)
        with pytest.raises(BrokerError, match=r"denies this user Read on topic 'in-trainer'\. Grant it:") as told:
            read()
    granted(site, str(told.value))
    assert read() == len(READINGS)


def settings_of(login: Login, **changes: object) -> Settings:
    found = {
        name.removeprefix("ZMU_KAFKA__").lower(): value
        for name, value in login.variables.items()
    }
    return Settings(kafka=KafkaSettings.model_validate(found | changes))


@contextmanager
def sockets_left() -> Iterator[None]:
    """kafka-python leaves the socket of a handshake that fails to the garbage collector, which comes here then.

    What is logged of it holds the socket as well, and pytest keeps all that is logged.
    """
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
    logging.disable(logging.NOTSET)


def test_who_is_not_let_in_is_told_why(site: Site) -> None:
    """All at once: kafka-python takes ten seconds to give up."""
    scram, mutual = site.login("scram", "SCRAM-SHA-512"), site.login("mutual", "mutual")
    stranger = site.broker.authority.__class__(site.folder / "strange", "stranger")
    theirs = stranger.sign("mutual")
    wrong = {"password_file": None, "password": "wrong"}
    at = {name: {"bootstrap_servers": address} for name, address in site.broker.address.items()}
    cases = {
        "refused the login of 'scram' by SCRAM-SHA-512": settings_of(scram, **wrong),
        "refused the login of 'scram' by PLAIN": settings_of(scram, **wrong, sasl_mechanism="PLAIN"),
        "refused the login of 'nobody'": settings_of(scram, username="nobody"),
        "does not know the login SCRAM-SHA-256": settings_of(scram, sasl_mechanism="SCRAM-SHA-256"),
        "not trusted .*ZMU_KAFKA__SSL_CAFILE": settings_of(scram, ssl_cafile=stranger.certificate),
        "certificate that has expired": settings_of(mutual, **at["expired"]),
        "certificate for another name .*'localhost'": settings_of(mutual, **at["elsewhere"]),
        "does not take this client's certificate .*REQUIRED.*ZMU_KAFKA__SSL_CERTFILE": settings_of(
            mutual, ssl_certfile=None, ssl_keyfile=None
        ),
        "does not take this client's certificate .*CERTIFICATE_UNKNOWN": settings_of(
            mutual, ssl_certfile=theirs.with_suffix(".crt"), ssl_keyfile=theirs.with_suffix(".key")
        ),
        "ZMU_KAFKA__SSL_KEYFILE": settings_of(mutual, ssl_password_file=None, ssl_password="wrong"),
        "ZMU_KAFKA__SSL_CAFILE=/absent": settings_of(scram, ssl_cafile="/absent"),
    }

    def told(settings: Settings) -> tuple[bool, str]:
        """Whether it is for the user to mend, and how."""
        try:
            require_topics_of(settings)
        except BrokerError as error:
            return not isinstance(error, BrokerUnreachable), str(error)
        return False, "let in"

    environment = site.environment(scram, ZMU_KAFKA__PASSWORD_FILE=str(site.secret("wrong", PASSWORD[::-1])))
    with Program("worker", "run", **environment) as program:
        with sockets_left(), ThreadPoolExecutor(len(cases)) as pool:
            found = dict(zip(cases, pool.map(told, cases.values()), strict=True))
        for said, (final, message) in found.items():
            assert re.search(said, message), message
            assert final, message
            without_secrets(message)
        assert program.wait() == 2
        last = program.stderr.splitlines()[-1]
        assert last.startswith(f"zmu-worker: Kafka at {site.broker.address['sasl']} refused the login of 'scram'")
        assert "Traceback" not in program.stderr
        assert PASSWORD[::-1] not in program.stderr
