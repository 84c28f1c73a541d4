"""The methods that a mixture is compared with: plain opponents, APE with and without demos, the published mixture."""
