select(.active and .age >= 30)
| .mail = .email
| .full_name = .first_name + " " + .last_name
| .city |= ascii_upcase
| del(.email, .note, .zip)
