# The Vault server in docker compose. It says only what HashiCorp Vault and OpenBao share, so either image takes it.
# The embedded stack makes the same for a loopback address (src/server.ts).

storage "raft" {
  path    = "/vault/data"
  node_id = "node1"

  # One node elects itself: with the default (5) the first initialization waits 9-10 s for it, with 1 it takes 1-2 s.
  performance_multiplier = 1
}

listener "tcp" {
  address         = "0.0.0.0:8200"
  cluster_address = "127.0.0.1:8201"

  # Made once by `main.js tls` into a volume of its own: the server's certificate cannot come from Vault itself.
  tls_cert_file = "/vault/tls/server.crt"
  tls_key_file  = "/vault/tls/server.key"
}

api_addr     = "https://vault:8200"
cluster_addr = "https://127.0.0.1:8201"

# HashiCorp Vault wants it with raft; OpenBao logs one warning and goes on.
disable_mlock = true

ui         = false
log_format = "json"
