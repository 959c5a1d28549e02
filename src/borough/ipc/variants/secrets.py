"""Messages about secrets and keys."""

from collections.abc import Mapping

from borough.ipc.rows import Variant, ok, one, row, same, wrapped

SECRETS: Mapping[str, Variant] = {
    "SecretUnlock": one(row("POST", "/secrets/unlock", body=same("passphrase")), wrapped("Unlocked")),
    "SecretLock": one(row("POST", "/secrets/lock"), ok),
    "SecretRekey": one(
        row("POST", "/secrets/rekey", body=same("old_passphrase", "new_passphrase")), wrapped("Rekeyed")
    ),
    "SecretAdd": one(
        row("PUT", "/secrets/{name}", parameters=same("name"), body=same("value", "description")), wrapped("Sealed")
    ),
    "SecretList": one(row("GET", "/secrets"), wrapped("Secrets", "secrets")),
    "SecretRemove": one(row("DELETE", "/secrets/{name}", parameters=same("name")), ok),
    "SecretPolicyAdd": one(
        row(
            "POST",
            "/secret-policies",
            body=same(
                "label",
                "secret_pattern",
                "tool_pattern",
                "host_pattern",
                "expires_at",
                "max_uses",
                "trust_level",
                "agent_matcher",
            ),
        ),
        wrapped("SecretPolicy"),
    ),
    "SecretPolicyList": one(row("GET", "/secret-policies"), wrapped("SecretPolicies", "policies")),
    "SecretPolicyShow": one(row("GET", "/secret-policies/{id}", parameters={"id": "id"}), wrapped("SecretPolicy")),
    "SecretPolicyRemove": one(row("DELETE", "/secret-policies/{id}", parameters={"id": "id"}), ok),
    "ApiKeyCreate": one(
        row("POST", "/tokens", body=same("name", "agent_id", "role", "scopes", "expires_at")),
        wrapped("ApiKey"),
        target=None,
    ),
    "ApiKeyList": one(row("GET", "/tokens"), wrapped("ApiKeys", "tokens")),
    "ApiKeyRotate": one(
        row("POST", "/tokens/{name}/rotate", parameters=same("name"), body=same("overlap_secs")), wrapped("ApiKey")
    ),
    "ApiKeyRevoke": one(row("DELETE", "/tokens/{name}", parameters=same("name")), ok),
}
