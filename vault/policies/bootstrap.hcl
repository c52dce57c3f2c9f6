# bootstrap: sets up and changes everything below. EQUAL TO ROOT: whoever may write policies can become anything.
# It takes the place of the root token, which is revoked after the first run. Its credential lies beside the unseal key.

path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

path "sys/mounts" {
  capabilities = ["read"]
}
path "sys/mounts/+" {
  capabilities = ["create", "update"]
}
path "sys/auth" {
  capabilities = ["read"]
}
path "sys/auth/approle" {
  capabilities = ["create", "update", "sudo"]
}
path "sys/policies/acl/*" {
  capabilities = ["create", "read", "update"]
}
path "auth/approle/role/*" {
  capabilities = ["create", "read", "update"]
}
path "pki/*" {
  capabilities = ["create", "read", "update", "list"]
}
path "pki_int/*" {
  capabilities = ["create", "read", "update", "list"]
}
# The last phase of a rotation removes the old intermediate.
path "pki_int/issuer/+" {
  capabilities = ["create", "read", "update", "list", "delete"]
}
path "pki_int/key/+" {
  capabilities = ["read", "delete"]
}
path "kv/data/ares/*" {
  capabilities = ["create", "read", "update"]
}
