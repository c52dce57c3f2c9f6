# api: the only one that may sign and revoke device certificates.

# Its own token, and nothing about anybody else's.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# A certificate in its own name only. A parameter that is not listed is refused: without that, `not_after` would walk
# past the role's longest life. An empty list takes any value; `alt_names` must match as a whole.
path "pki_int/sign/service" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = ["api.service.ares4.internal"]
    "alt_names"            = ["api.service.ares4.internal,api,localhost"]
    "ip_sans"              = ["127.0.0.1"]
    "exclude_cn_from_sans" = []
    "ttl"                  = []
    "format"               = []
  }
}

# Any device's name: which device may have which certificate is api's own decision. No other name, address or end date.
path "pki_int/sign/device" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = []
    "exclude_cn_from_sans" = []
    "ttl"                  = []
    "format"               = []
  }
}

# By serial only. Vault cannot tell the roles of one mount apart here: this right covers every certificate of pki_int.
path "pki_int/revoke" {
  capabilities = ["update"]
  allowed_parameters = {
    "serial_number" = []
  }
}

# For the reconciler: what Vault has against what the database has.
path "pki_int/certs" {
  capabilities = ["list"]
}
path "pki_int/certs/revoked" {
  capabilities = ["list"]
}

# Key of EMQX's management API. In the community edition every such key is an administrator: only api has it.
path "kv/data/ares/emqx-management" {
  capabilities = ["read"]
}
