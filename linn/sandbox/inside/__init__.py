"""What runs inside the isolation.

Standard library and relative imports only: it is started without the rest of the package.
"""
