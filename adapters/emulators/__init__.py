"""The venues' other side: their WebSocket and REST faces, written from their documentation."""
