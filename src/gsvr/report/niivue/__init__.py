"""NiiVue, the viewer in a page: the bundle that its authors publish, compressed, with its licences.

``scripts/vendor_niivue.py`` makes both files anew from npm.
"""

from pathlib import Path

VERSION = "0.69.0"
# of dist/niivue.umd.js in the npm package
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
BUNDLE = Path(__file__).with_name("niivue.umd.js.gz")
LICENCES = Path(__file__).with_name("LICENSES.txt")
