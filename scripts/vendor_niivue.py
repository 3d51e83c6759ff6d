"""Take the viewer of reports, NiiVue, from npm anew, with the licences of all that is in it.

``python scripts/vendor_niivue.py`` needs npm. The bundle that NiiVue publishes is taken as it is and compressed; it is
kept in the repository so that gsvr can be installed, and reports be made, without npm or a network. For another version
change `gsvr.report.niivue`: the script says what the bundle's hash is.
"""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from gsvr.report.niivue import BUNDLE, LICENCES, SHA256, VERSION

# The package does not hold its own licence; this is its repository's.
_NIIVUE = """BSD 2-Clause License

Copyright (c) 2021, Niivue
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this
   list of conditions and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice,
   this list of conditions and the following disclaimer in the documentation
   and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def main() -> int:
    """Write the bundle and the licences; 1 if the bundle is another one than expected."""
    with tempfile.TemporaryDirectory() as folder:
        install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", f"@niivue/niivue@{VERSION}"]
        subprocess.run(install, cwd=folder, check=True)
        packages = Path(folder, "node_modules")
        content = (packages / "@niivue/niivue/dist/niivue.umd.js").read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256:
            print(f"NiiVue {VERSION} has the hash {found}, not {SHA256}")
            return 1
        parts = [f"NiiVue {VERSION}\n\n{_NIIVUE}"]
        for path in sorted([*packages.glob("*/LICENSE*"), *packages.glob("@*/*/LICENSE*")]):
            name = path.parent.relative_to(packages).as_posix()
            parts.append(f"Part of NiiVue's bundle: {name}\n\n{path.read_text(encoding='utf-8').strip()}\n")
    BUNDLE.write_bytes(gzip.compress(content, 9, mtime=0))
    LICENCES.write_text(f"\n{'-' * 80}\n\n".join(parts), encoding="utf-8")
    print(f"{BUNDLE.name}: {BUNDLE.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
