"""What listens at an address, found out without telling it anything."""

import asyncio
import ssl
from typing import Final

_WITHIN_S: Final = 5.0


async def speaks_tls(addr: str) -> bool:
    """Tell whether what listens at ``host:port`` answers a TLS handshake; nothing else is sent, nobody is trusted."""
    host, _, port = addr.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_WITHIN_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
    except (OSError, TimeoutError):  # ssl.SSLError is an OSError
        return False
    writer.transport.abort()
    return True
