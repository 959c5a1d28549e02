"""The port ``McpServers``, over the official SDK. The SDK is imported when the first server is attached: it is slow."""
