"""Users of a broker and what each of them may do, set as a whole.

Source of the model: Kafka's SCRAM credentials and the access control lists of its
StandardAuthorizer; what is not granted is denied.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
)
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from fleetpulse.domain.secret import Secret
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess

TIMEOUT_S: Final = 30.0
_CONNECT_TIMEOUT_S: Final = 10.0
# Kafka's own default for SCRAM-SHA-512; RFC 5802 wants 4096 at least.
_ITERATIONS: Final = 8192
_SALT_BYTES: Final = 16
_ANY_HOST: Final = "*"


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """What a user may do with a topic, group or transactional id.

    `resource` is TOPIC, GROUP or TRANSACTIONAL_ID; `operation` one of Kafka's, such as READ or
    WRITE, which both imply DESCRIBE. With `is_prefix` it holds for all names that begin so.
    """

    user: str
    resource: str
    name: str
    operation: str
    is_prefix: bool = False


def set_users(access: KafkaAccess, passwords: Mapping[str, Secret], names: Iterable[str]) -> None:
    """Let the users in with these passwords; those of `names` that have none are let in no more.

    Users beside `names` are somebody else's and stay. Raises ServiceUnreachable.
    """
    client, errors = _client(access)
    found = _answer(errors, client.describe_user_scram_credentials())
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    changes: list[Any] = [
        UserScramCredentialUpsertion(
            user, info, password.reveal().encode(), secrets.token_bytes(_SALT_BYTES)
        )
        for user, password in passwords.items()
    ]
    changes += [
        UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512)
        for user in names
        if user in found and user not in passwords
    ]
    if changes:
        for changed in client.alter_user_scram_credentials(changes).values():
            _answer(errors, changed)


def set_grants(access: KafkaAccess, grants: Sequence[Grant], names: Iterable[str]) -> None:
    """Grant the users `names` exactly `grants`; others keep what they have.

    Raises ServiceUnreachable.
    """
    client, errors = _client(access)
    principals = {f"User:{name}" for name in names}
    found: list[AclBinding] = _answer(errors, client.describe_acls(_everything()))
    present = {one for one in found if one.principal in principals}
    wanted = {_binding(grant) for grant in grants}
    # First what is new: a role that runs must not be locked out for a moment.
    if new := [*(wanted - present)]:
        for made in client.create_acls(new).values():
            _answer(errors, made)
    if old := [_filter(one) for one in present - wanted]:
        for removed in client.delete_acls(old).values():
            _answer(errors, removed)


def reload_certificate(access: KafkaAccess, node_id: int, listeners: Iterable[str]) -> None:
    """Let a broker read the files of its certificates again, without a restart.

    Source: Kafka's dynamic broker configuration; a store whose path stays is read when its file is
    newer. Raises ServiceUnreachable.
    """
    client, errors = _client(access)
    tls = access.tls
    path = str(tls.certificate_file.absolute()) if tls and tls.certificate_file else ""
    entries = [
        ConfigEntry(
            f"listener.name.{name.lower()}.ssl.keystore.location",
            path,
            incremental_operation=AlterConfigOpType.SET,
        )
        for name in listeners
    ]
    resource = ConfigResource(ConfigResource.Type.BROKER, str(node_id), incremental_configs=entries)
    for changed in client.incremental_alter_configs([resource]).values():
        _answer(errors, changed)


def _client(access: KafkaAccess) -> tuple[AdminClient, ClientErrors]:
    errors = ClientErrors(access)
    client = access.client(AdminClient, {"client.id": "fleetpulse-access"}, errors.note)
    try:
        # Where there is no connection the calls below would only say so after half a minute.
        client.list_topics(timeout=_CONNECT_TIMEOUT_S)
    except KafkaException as err:
        raise errors.failure(str(err.args[0].str()), client) from None
    return client, errors


def _answer(errors: ClientErrors, asked: Any) -> Any:  # noqa: ANN401  untyped client
    try:
        return asked.result(TIMEOUT_S)
    except KafkaException as err:
        errors.note(err.args[0])
        raise errors.failure(str(err.args[0].str())) from None  # its cause may quote a request
    except FutureTimeout as err:
        raise errors.failure(f"no answer within {TIMEOUT_S:g} s") from err


def _everything() -> AclBindingFilter:
    # The client takes None for "any" here; its annotations do not know it.
    anything: Any = None
    return AclBindingFilter(
        ResourceType.ANY,
        anything,
        ResourcePatternType.ANY,
        anything,
        anything,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )


def _binding(grant: Grant) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if grant.is_prefix else ResourcePatternType.LITERAL
    return AclBinding(
        ResourceType[grant.resource],
        grant.name,
        pattern,
        f"User:{grant.user}",
        _ANY_HOST,
        AclOperation[grant.operation],
        AclPermissionType.ALLOW,
    )


def _filter(found: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        found.restype,
        found.name,
        found.resource_pattern_type,
        found.principal,
        found.host,
        found.operation,
        found.permission_type,
    )
