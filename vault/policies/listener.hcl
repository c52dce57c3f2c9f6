# listener: its own certificate, nothing else.

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
    "common_name"          = ["listener.service.ares4.internal"]
    "alt_names"            = ["listener.service.ares4.internal,listener,localhost"]
    "ip_sans"              = ["127.0.0.1"]
    "exclude_cn_from_sans" = []
    "ttl"                  = []
    "format"               = []
  }
}
