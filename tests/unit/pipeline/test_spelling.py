"""Which variables are taken for misspelt settings, and which are somebody else's."""

from collections.abc import Iterator

import pytest

from pipeline.errors import SettingsError
from pipeline.setting_names import SETTING_NAMES
from pipeline.settings import KafkaSettings, load
from pipeline.spelling import FOREIGN, OWN_PREFIXES, misspelt

VALUE = "hunter2"

SERVICES = (
    "KAFKA",
    "POSTGRES",
    "WEB",
    "BRIDGE",
    "MONITOR",
    "BRIDGE_WEB",
    "MONITOR_WEB",
    "KAFKA_TOPIC",
    "WORKER",
    "SQS_QUEUE",
    "MASKING",
)
"""What somebody may call a service of theirs in Kubernetes."""


def service_links(service: str) -> Iterator[tuple[str, str]]:
    """What Kubernetes gives each container about a service with two ports, one with a name."""
    yield f"{service}_SERVICE_HOST", "10.0.0.7"
    yield f"{service}_SERVICE_PORT", "9092"
    yield f"{service}_SERVICE_PORT_HTTP_METRICS", "9090"
    yield f"{service}_PORT", "tcp://10.0.0.7:9092"
    for port, protocol in ((9092, "TCP"), (9090, "UDP")):
        yield f"{service}_PORT_{port}_{protocol}", f"{protocol.lower()}://10.0.0.7:{port}"
        yield f"{service}_PORT_{port}_{protocol}_PROTO", protocol.lower()
        yield f"{service}_PORT_{port}_{protocol}_PORT", str(port)
        yield f"{service}_PORT_{port}_{protocol}_ADDR", "10.0.0.7"


OTHERS = {
    "the postgres image": "POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE POSTGRES_USER POSTGRES_USER_FILE POSTGRES_DB POSTGRES_DB_FILE"
    " POSTGRES_INITDB_ARGS POSTGRES_INITDB_ARGS_FILE POSTGRES_INITDB_WALDIR POSTGRES_HOST_AUTH_METHOD PGDATA PG_MAJOR PG_VERSION"
    " PG_SHA256 GOSU_VERSION DOCKER_PG_LLVM_DEPS",
    "applications that use Postgres": "POSTGRES_HOST POSTGRES_PORT POSTGRES_URL POSTGRES_DATABASE POSTGRES_SERVER"
    " DATABASE_URL DB_HOST DB_PORT DB_PASSWORD",
    "Bitnami's postgresql image": "POSTGRESQL_PASSWORD POSTGRESQL_PASSWORD_FILE POSTGRESQL_USERNAME POSTGRESQL_DATABASE"
    " POSTGRESQL_POSTGRES_PASSWORD POSTGRESQL_POSTGRES_PASSWORD_FILE POSTGRESQL_PORT_NUMBER POSTGRESQL_MAX_CONNECTIONS"
    " POSTGRESQL_STATEMENT_TIMEOUT POSTGRESQL_LOG_CONNECTIONS POSTGRESQL_ENABLE_TLS POSTGRESQL_TLS_CERT_FILE"
    " POSTGRESQL_REPLICATION_PASSWORD_FILE POSTGRESQL_TCP_KEEPALIVES_IDLE POSTGRESQL_VOLUME_DIR",
    "apache/kafka and Confluent's images": "KAFKA_HEAP_OPTS KAFKA_OPTS KAFKA_JVM_PERFORMANCE_OPTS KAFKA_LOG4J_OPTS KAFKA_JMX_PORT"
    " KAFKA_JMX_OPTS KAFKA_GC_LOG_OPTS KAFKA_DEBUG KAFKA_HOME KAFKA_VERSION KAFKA_ADVERTISED_LISTENERS KAFKA_LISTENERS"
    " KAFKA_LISTENER_SECURITY_PROTOCOL_MAP KAFKA_INTER_BROKER_LISTENER_NAME KAFKA_CONTROLLER_LISTENER_NAMES KAFKA_NODE_ID"
    " KAFKA_BROKER_ID KAFKA_PROCESS_ROLES KAFKA_CONTROLLER_QUORUM_VOTERS KAFKA_LOG_DIRS KAFKA_LOG_DIR KAFKA_NUM_PARTITIONS"
    " KAFKA_LOG_RETENTION_HOURS KAFKA_LOG_RETENTION_MS KAFKA_LOG_RETENTION_BYTES KAFKA_MIN_INSYNC_REPLICAS"
    " KAFKA_DEFAULT_REPLICATION_FACTOR KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS"
    " KAFKA_TRANSACTION_STATE_LOG_MIN_ISR KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS"
    " KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS KAFKA_GROUP_MAX_SESSION_TIMEOUT_MS KAFKA_ZOOKEEPER_CONNECT"
    " KAFKA_ZOOKEEPER_SESSION_TIMEOUT_MS KAFKA_ZOOKEEPER_CONNECTION_TIMEOUT_MS KAFKA_AUTO_CREATE_TOPICS_ENABLE"
    " KAFKA_DELETE_TOPIC_ENABLE KAFKA_LOG4J_ROOT_LOGLEVEL KAFKA_TOOLS_LOG4J_LOGLEVEL KAFKA_LOG4J_LOGGERS KAFKA_BROKER_RACK"
    " KAFKA_SSL_KEYSTORE_FILENAME KAFKA_SASL_ENABLED_MECHANISMS KAFKA_METRIC_REPORTERS CLUSTER_ID EXTRA_ARGS LOG_DIR"
    " CONFLUENT_METRICS_ENABLE CONNECT_BOOTSTRAP_SERVERS CONNECT_GROUP_ID SCHEMA_REGISTRY_KAFKASTORE_BOOTSTRAP_SERVERS",
    "Bitnami's kafka image": "KAFKA_CFG_NODE_ID KAFKA_CFG_LISTENERS KAFKA_CFG_NUM_PARTITIONS KAFKA_CFG_MIN_INSYNC_REPLICAS"
    " KAFKA_ENABLE_KRAFT KAFKA_KRAFT_CLUSTER_ID KAFKA_CLIENT_USERS KAFKA_CLIENT_PASSWORDS KAFKA_CERTIFICATE_PASSWORD"
    " KAFKA_VOLUME_DIR KAFKA_EXTRA_FLAGS ALLOW_PLAINTEXT_LISTENER",
    "queues": "SQS_ENDPOINT_STRATEGY SQS_DELAY_PURGE_RETRY SQS_PROVIDER AWS_DEFAULT_REGION AWS_REGION AWS_PROFILE AWS_ROLE_ARN"
    " AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_ENDPOINT_URL AWS_ENDPOINT_URL_SQS AWS_MAX_ATTEMPTS"
    " AWS_WEB_IDENTITY_TOKEN_FILE AWS_CONTAINER_CREDENTIALS_RELATIVE_URI AWS_EXECUTION_ENV AWS_CA_BUNDLE",
    "web servers and logs": "WEB_CONCURRENCY WEB_HOST PORT HOST LOGLEVEL LOG_FILE LOG_PATH LOG_CHANNEL LOG_COLOR GUNICORN_CMD_ARGS",
    "applications in general": "APP_VERSION APP_NAME APP_ENV APP_DEBUG APP_PORT VERSION ENVIRONMENT DEBUG TZ TIMEZONE"
    " CONSUMER_KEY CONSUMER_SECRET HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy SENTRY_DSN OTEL_SERVICE_NAME",
    "Python's image": "PATH LANG GPG_KEY PYTHON_VERSION PYTHON_SHA256 PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE",
    "shells and desktops": "HOME USER SHELL SHLVL TERM PWD OLDPWD HOSTNAME LC_ALL EDITOR PAGER DISPLAY WINDOWID WINDOWPATH"
    " WINDOW_MANAGER XDG_CACHE_HOME SSH_AUTH_SOCK COLORTERM LS_COLORS VIRTUAL_ENV PS1 _",
    "our tests and benchmarks": "DEV_SERVERS_CACHE CRASH_WHOLE CRASH_FAULT CRASH_SEED ALERTS_WHOLE ALERTMANAGER"
    " PYTEST_CURRENT_TEST",
    "what Faust and other libraries read": "BROKER_URL BROKER_SESSION_TIMEOUT CONSUMER_AUTO_OFFSET_RESET CONSUMER_API_VERSION"
    " CONSUMER_GROUP_INSTANCE_ID TOPIC_PARTITIONS TOPIC_REPLICATION_FACTOR FAUST_LOOP F_WEB_PORT FAUST_WEB_BIND NO_CYTHON"
    " PROMETHEUS_MULTIPROC_DIR SSL_CERT_FILE PGHOST PGSSLMODE AIOKAFKA_NO_EXTENSIONS DJANGO_SETTINGS_MODULE",
}


@pytest.mark.parametrize("whose", OTHERS)
def test_variables_of_others_are_let_alone(whose: str) -> None:
    assert misspelt(dict.fromkeys(OTHERS[whose].split(), "1"), SETTING_NAMES) == []


@pytest.mark.parametrize("service", SERVICES)
def test_kubernetes_may_have_a_service_of_any_name(service: str) -> None:
    assert misspelt(dict(service_links(service)), SETTING_NAMES) == []


@pytest.mark.parametrize("name", ["MONITOR_PORT", "BRIDGE_PORT", "BRIDGE_HOST"])
def test_what_only_ends_as_a_service_link_does_is_none(name: str) -> None:
    assert misspelt({name: "9090"}, SETTING_NAMES) != []


def slips(name: str) -> set[str]:
    """What comes of writing this quickly, or from memory."""
    found = {name[:place] + name[place + 1 :] for place in range(len(name))}  # one dropped, an underscore too
    found |= {name[:place] + letter + name[place:] for place, letter in enumerate(name)}  # one doubled
    found |= {name[:place] + name[place + 1] + name[place] + name[place + 2 :] for place in range(len(name) - 1)}  # two swapped
    found |= {f"{name[:place]}_{name[place:]}" for place in range(1, len(name))}  # an underscore added
    words = name.split("_")
    for place, word in enumerate(words):
        for other in (f"{word}S", word.removesuffix("S")):  # more or fewer than one
            found.add("_".join([*words[:place], other, *words[place + 1 :]]))
    found |= {name.lower(), name.title(), name.replace("_", "-"), name.replace("_", "."), name.replace("_", "")}
    return found - SETTING_NAMES - FOREIGN


@pytest.mark.parametrize("setting", sorted(SETTING_NAMES))
def test_a_slip_in_any_setting_is_caught_and_the_right_one_named(setting: str) -> None:
    names = sorted(slips(setting))
    assert misspelt(dict.fromkeys(names, VALUE), SETTING_NAMES) == [
        f"{name}: no such setting, {setting} is the name: set that instead" for name in names
    ]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("MASKING_METHOD", "MASKING_METHODS"),
        ("POSTGRES_SSL_MODE", "POSTGRES_SSLMODE"),
        ("POSTGRES_SSLROOT_CERT", "POSTGRES_SSLROOTCERT"),
        ("POSTGRES_SSL_ROOT_CERT_FILE", "POSTGRES_SSLROOTCERT"),
        ("POSTGRESQL_SSLMODE", "POSTGRES_SSLMODE"),
        ("POSTGRES_DNS", "POSTGRES_DSN"),
        ("POSTGRES_PASSWORDFILE", "POSTGRES_PASSWORD_FILE"),
        ("POSTGRES_CONNECT_TIMEOUT", "POSTGRES_CONNECT_TIMEOUT_SECONDS"),
        ("POSTGRES_STATEMENT_TIMEOUT_MS", "POSTGRES_STATEMENT_TIMEOUT_SECONDS"),
        ("BRIDGE_RECIEVERS", "BRIDGE_RECEIVERS"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_TOPICS", "KAFKA_TOPIC"),
        ("KAFKA_TOPIC_NAME", "KAFKA_TOPIC"),
        ("KAFKA_SESSION_TIMEOUT_MS", "KAFKA_SESSION_TIMEOUT_SECONDS"),
        ("CONSUMER_GROUP_ID", "CONSUMER_GROUP"),
        ("SQS_QUEUE", "SQS_QUEUE_URL"),
        ("SQS_QUEUE_NAME", "SQS_QUEUE_URL"),
        ("BUFFER_MAX_BYTES", "BUFFER_BYTES_MAX"),
        ("DEADLETTER_PUBLIC_KEYSET", "DEAD_LETTER_PUBLIC_KEYSET_FILE"),
        ("MASKING_KEYSET", "MASKING_KEYSET_FILE"),
        ("APP_VERSION_ENCODINGS", "APP_VERSION_ENCODING"),
        ("CREATE_DATE_TIMEZONE", "CREATE_DATE_TIME_ZONE"),
        ("LOG_LEVELS", "LOG_LEVEL"),
    ],
)
def test_a_likely_guess_is_caught_and_the_right_one_named(name: str, setting: str) -> None:
    (problem,) = misspelt({name: VALUE}, SETTING_NAMES)
    assert problem.startswith(f"{name}: no such setting, {setting} is the name")


OTHER_WORDS = {"MASK_": "MASKING_", "POSTGRES_TLS": "POSTGRES_SSL"}
"""What somebody may say for a prefix of ours where it is dearest: MASK_METHODS encrypts, POSTGRES_TLS gives the password away."""


@pytest.mark.parametrize("name", ["MASK_METHODS", "POSTGRES_SSL", "POSTGRES_SSL_CA", "POSTGRES_TLS", "SENT_AT_MAX_AGE"])
def test_a_name_of_ones_own_making_is_caught_where_it_would_do_harm(name: str) -> None:
    """Seen to be let alone: none is near enough to a setting."""
    (problem,) = misspelt({name: VALUE}, SETTING_NAMES)
    assert problem.startswith(f"{name}: no such setting")


@pytest.mark.parametrize("prefix", OWN_PREFIXES)
def test_nothing_unknown_stands_under_a_prefix_of_ours_alone(prefix: str) -> None:
    (problem,) = misspelt({f"{prefix}QUUX": VALUE}, SETTING_NAMES)
    assert problem.startswith(f"{prefix}QUUX: no such setting")
    assert f"begins with {prefix} is nobody else's" in problem
    assert prefix in OTHER_WORDS or any(name.startswith(prefix) for name in SETTING_NAMES)


def test_a_setting_of_another_process_of_ours_is_no_slip() -> None:
    assert misspelt(dict.fromkeys(SETTING_NAMES, VALUE), {"KAFKA_TOPIC", *SETTING_NAMES}) == []


def test_an_empty_variable_is_let_alone() -> None:
    assert misspelt({"MASKING_METHOD": ""}, SETTING_NAMES) == []


def test_a_name_is_shown_without_what_a_terminal_would_obey() -> None:
    (problem,) = misspelt({"MASKING_\x1b[2J\n" + "A" * 500: VALUE}, SETTING_NAMES)
    assert problem.isprintable()
    assert len(problem) < 300


def test_a_start_says_all_at_once_and_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASKING_METHOD", "BRIDGE_RECIEVERS", "kafka_topic", "KAFKA_TOPIC_PARTITIONS"):
        monkeypatch.setenv(name, VALUE)
    with pytest.raises(SettingsError) as caught:
        load(KafkaSettings)
    said = str(caught.value)
    assert VALUE not in said
    assert "\n" not in said
    for problem in (
        "MASKING_METHOD: no such setting, MASKING_METHODS is the name",
        "BRIDGE_RECIEVERS: no such setting, BRIDGE_RECEIVERS is the name",
        "kafka_topic: no such setting, KAFKA_TOPIC is the name",
        "KAFKA_TOPIC_PARTITIONS: expected a whole number, from 1 to 10000",
    ):
        assert problem in said
