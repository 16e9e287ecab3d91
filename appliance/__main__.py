"""`python -m appliance` is `wg-appliance`."""

from appliance.cli import main

main()
