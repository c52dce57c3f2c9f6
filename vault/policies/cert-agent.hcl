# cert-agent: keeps the broker's certificate fresh and hands the services the credentials of their next login.

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

# The broker's certificate. Its names are configuration; the role limits them to the broker's own.
path "pki_int/sign/broker" {
  capabilities = ["create", "update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = ["broker.ares4.internal"]
    "alt_names"            = []
    "ip_sans"              = []
    "exclude_cn_from_sans" = []
    "ttl"                  = []
    "format"               = []
  }
}

# Credentials for the next login of each service. A secret id is given only wrapped (a least wrapping time makes wrapping
# a must): what the agent holds opens once, and a second opening is noticed. No parameter is taken, so it cannot ask for
# one that lives longer or is used more often than the role says.
path "auth/approle/role/api/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/api/secret-id" {
  capabilities      = ["create", "update"]
  min_wrapping_ttl  = "10s"
  max_wrapping_ttl  = "1h"
  denied_parameters = {
    "*" = []
  }
}
path "auth/approle/role/listener/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/listener/secret-id" {
  capabilities      = ["create", "update"]
  min_wrapping_ttl  = "10s"
  max_wrapping_ttl  = "1h"
  denied_parameters = {
    "*" = []
  }
}
path "auth/approle/role/authorizer/role-id" {
  capabilities = ["read"]
}
path "auth/approle/role/authorizer/secret-id" {
  capabilities      = ["create", "update"]
  min_wrapping_ttl  = "10s"
  max_wrapping_ttl  = "1h"
  denied_parameters = {
    "*" = []
  }
}
