"""The town's store on Valkey or Redis 7.0 and later: keys, server-side functions, client, embedded server."""
