<?php
// The identity provider. What the test says ("idp") replaces what stands here.
$told = json_decode(file_get_contents(getenv('GROUPGATE_SAML_DIR') . '/told.json'), true, 512, JSON_THROW_ON_ERROR);
$metadata['__DYNAMIC:1__'] = array_replace([
    'host' => '__DEFAULT__',
    'privatekey' => 'idp.key',
    'certificate' => 'idp.crt',
    'auth' => 'people',
    // A NameID that stays, made of the person's name; other formats are made the old way.
    'authproc' => [3 => ['class' => 'saml:PersistentNameID', 'attribute' => 'uid']],
    'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent',
    'attributes.NameFormat' => 'urn:oasis:names:tc:SAML:2.0:attrname-format:basic',
    'saml20.sign.response' => false,
    'saml20.sign.assertion' => true,
    // It takes no request that is not signed, and signs its own.
    'validate.authnrequest' => true,
    'sign.logout' => true,
    'validate.logout' => true,
    'redirect.sign' => true,
    'redirect.validate' => true,
], $told['idp'] ?? []);
