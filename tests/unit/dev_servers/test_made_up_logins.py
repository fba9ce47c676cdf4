"""Made-up logins have the form of real ones, and are the same for the same seed."""

import json
import re
from collections import defaultdict
from ipaddress import ip_address
from uuid import UUID

from dev_servers.made_up_logins import OTHER_KIND, made_up_logins

LOGINS = list(made_up_logins(5_000))


def test_the_same_seed_gives_the_same_logins() -> None:
    assert list(made_up_logins(5_000)) == LOGINS
    assert list(made_up_logins(5_000, seed=1)) != LOGINS
    assert len(LOGINS) == 5_000


def test_each_is_a_whole_record() -> None:
    for login in LOGINS:
        record = json.loads(login.body())
        assert list(record) == ["user_id", "app_version", "device_type", "ip", "locale", "device_id"]
        assert str(UUID(record["user_id"])) == record["user_id"]
        assert str(ip_address(record["ip"])) == record["ip"]
        assert re.fullmatch(r"\d{3}-\d{2}-\d{4}", record["device_id"])
        assert re.fullmatch(r"\d(\.\d){1,2}", record["app_version"])
        assert record["locale"] is None or re.fullmatch("[A-Z]{2}", record["locale"])


def test_some_persons_share_a_device_and_some_an_address() -> None:
    by_device, by_ip = defaultdict(set), defaultdict(set)
    for login in LOGINS:
        by_device[login.device_id].add(login.user_id)
        by_ip[login.ip].add(login.user_id)
    persons = {login.user_id for login in LOGINS}
    sharing_device = {person for group in by_device.values() if len(group) > 1 for person in group}
    sharing_ip = {person for group in by_ip.values() if len(group) > 1 for person in group}
    assert 0.03 < len(sharing_device) / len(persons) < 0.2
    assert 0.1 < len(sharing_ip) / len(persons) < 0.5


def test_a_few_logins_can_be_had() -> None:
    assert list(made_up_logins(0)) == []
    assert len(list(made_up_logins(1))) == 1


def test_the_message_of_another_kind_is_json_without_a_field_of_a_login() -> None:
    assert set(json.loads(OTHER_KIND)) & {"user_id", "app_version", "device_type", "ip", "locale", "device_id"} == set()
