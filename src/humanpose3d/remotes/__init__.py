"""Files wherever they lie: `open_store` gives a local folder or an rclone remote (any cloud drive) the same face.

store.py has that face and the local folder, drive.py the remote one, rclone.py the binary, its limits and its retries,
daemon.py the one rclone process that a machine's programs share, and keeper.py ends it with the last of them.
"""

from humanpose3d.remotes.drive import RcloneStore as RcloneStore
from humanpose3d.remotes.drive import open_store as open_store
from humanpose3d.remotes.rclone import SLOWEST_BYTES_PER_S as SLOWEST_BYTES_PER_S
from humanpose3d.remotes.rclone import RemoteError as RemoteError
from humanpose3d.remotes.rclone import configured_remotes as configured_remotes
from humanpose3d.remotes.rclone import rclone_binary as rclone_binary
from humanpose3d.remotes.rclone import run_rclone as run_rclone
from humanpose3d.remotes.store import Entry as Entry
from humanpose3d.remotes.store import LocalStore as LocalStore
from humanpose3d.remotes.store import Store as Store
