copy (
    select * exclude (email, note, zip) replace (upper(city) as city),
        email as mail,
        first_name || ' ' || last_name as full_name
    from read_ndjson('/dev/stdin', columns = {
        _id: 'varchar', first_name: 'varchar', last_name: 'varchar', email: 'varchar', age: 'bigint',
        active: 'boolean', balance: 'double', city: 'varchar', zip: 'varchar', created: 'varchar',
        tags: 'varchar[]', "company-ref": 'varchar', note: 'varchar'})
    where active and age >= 30
) to '/dev/stdout' (format json);
